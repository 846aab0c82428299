# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""`MoraPipeline`: rows, batches, tasks, chats, streaming, errors, saving."""

import copy
import json

import datasets
import pandas as pd
import pytest
import torch
from conftest import MOLECULES
from tokenizers.processors import TemplateProcessing
from transformers import GenerationConfig, TextIteratorStreamer, TextStreamer, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from eval.generation import generate_answers
from modeling_mora import MoleculeError, MoraPipeline, MoraProcessor
from modeling_mora.tasks_mora import get_task

ROWS = [
    {"molecule": "CCO", "text": "Is it soluble in water?"},
    {"text": "What is a solvent?"},
    {"molecule": "CC(=O)Oc1ccccc1C(=O)O", "text": "A much longer question about this molecule?"},
    {"molecule": None, "text": "Hm?"},
    {"molecule": "c1ccccc1", "task": "property_prediction", "property": "homo"},
    {"molecule": "[Na+].[Cl-]", "text": "Is it a salt?"},
    {"molecule": "N#N", "task": "property_prediction", "property": "gap", "phrasing": 1},
]
GAP = {"task": "property_prediction", "property": "gap"}


@pytest.fixture(scope="module")
def pipe(make_model, processor) -> MoraPipeline:
    return MoraPipeline(model=make_model().eval(), processor=processor, max_new_tokens=8)


@pytest.fixture
def script(pipe, monkeypatch):
    """Let the model write given answers, one for each row of a batch; records what it was given."""
    given = {}

    def use(*answers: str, end: str = "<|im_end|>") -> dict:
        def generate(input_ids, **kwargs):
            given.update(kwargs, prompts=pipe.tokenizer.batch_decode(input_ids))
            texts = [answer + end for answer in answers]
            tokens = pipe.tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
            return torch.cat([input_ids, tokens["input_ids"]], dim=1)

        monkeypatch.setattr(pipe.model, "generate", generate)
        return given

    return use


def test_a_batch_answers_as_single_rows(pipe):
    single = [pipe(row) for row in ROWS]
    assert pipe(ROWS, batch_size=1) == single
    assert pipe(ROWS, batch_size=4) == single
    assert len({row[0]["generated_text"] for row in single}) == len(ROWS)
    assert [set(row[0]) for row in single] == [
        {"generated_text", "value"} if "task" in row else {"generated_text"} for row in ROWS
    ]


def test_the_molecule_is_seen_and_its_absence_is_the_base_model(pipe):
    text = "Is it soluble in water?"
    ethanol, benzene, none = (
        pipe({"molecule": molecule, "text": text}) for molecule in ("CCO", "c1ccccc1", None)
    )
    assert ethanol != benzene and ethanol != none
    with pipe.model.disable_adapter():
        assert pipe({"molecule": "CCO", "text": text}) == none == pipe({"text": text})


def test_answers_are_those_of_the_benchmark(pipe, processor):
    """Same prompt, same settings: what `eval` scores is what the pipeline says."""
    task = get_task("property_prediction")
    answers = generate_answers(
        pipe.model,
        processor,
        prompts=[task.question(smiles, "gap") for smiles in ("CCO", "c1ccccc1")],
        molecules=["CCO", "c1ccccc1"],
        max_new_tokens=8,
    )
    # Written in another way, yet asked with canonical SMILES.
    found = pipe([{"molecule": "OCC"}, {"molecule": "C1=CC=CC=C1"}], **GAP)
    assert [row[0]["generated_text"].strip() for row in found] == [a.text for a in answers]


def test_weights_are_generated_once_per_batch(pipe, monkeypatch):
    calls = []
    encode = pipe.model.encode_molecules
    monkeypatch.setattr(
        pipe.model, "encode_molecules", lambda **graph: calls.append(1) or encode(**graph)
    )
    pipe([{"molecule": molecule, "text": "?"} for molecule in MOLECULES[:4]], batch_size=4)
    assert len(calls) == 1


def test_generators_and_datasets_stream(pipe):
    expected = pipe(ROWS)
    found = pipe((row for row in ROWS), batch_size=3)
    assert next(iter(found)) == expected[0]
    assert list(pipe((row for row in ROWS), batch_size=3)) == expected
    dataset = KeyDataset([{"question": row} for row in ROWS], "question")
    assert list(pipe(dataset, batch_size=3)) == expected
    molecules = KeyDataset([{"smiles": "CCO"}, {"smiles": "C"}], "smiles")
    by_name = pipe([{"molecule": "CCO"}, {"molecule": "C"}], **GAP)
    assert list(pipe(molecules, batch_size=2, **GAP)) == by_name
    assert pipe([]) == []
    assert pipe(tuple(ROWS[:2])) == expected[:2]


def test_worker_processes(pipe):
    dataset = KeyDataset([{"question": row} for row in ROWS[:4]], "question")
    assert list(pipe(dataset, batch_size=2, num_workers=1)) == pipe(ROWS[:4])


def test_streaming(pipe, capsys):
    answer = pipe(ROWS[0])[0]["generated_text"]
    pipe(ROWS[0], streamer=TextStreamer(pipe.tokenizer, skip_prompt=True))
    assert capsys.readouterr().out.strip() == answer.strip()
    streamer = TextIteratorStreamer(pipe.tokenizer, skip_prompt=True)
    pipe(ROWS[0], streamer=streamer)
    assert "".join(streamer) == answer


def test_generation_settings(pipe):
    torch.manual_seed(0)
    several = pipe(ROWS[:3], batch_size=2, do_sample=True, num_return_sequences=3)
    assert [len(row) for row in several] == [3, 3, 3]
    beams = pipe(ROWS[0], num_beams=3, num_return_sequences=2)
    assert len({record["generated_text"] for record in beams}) == 2
    short = pipe(ROWS[0])[0]["generated_text"]
    long = pipe(ROWS[0], max_new_tokens=12)[0]["generated_text"]
    assert long.startswith(short) and long != short
    config = GenerationConfig(max_new_tokens=12, do_sample=False)
    quiet = MoraPipeline(model=pipe.model, processor=pipe.processor)
    assert quiet(ROWS[0], generation_config=config)[0]["generated_text"] == long
    assert config.eos_token_id is None
    ids = pipe.tokenizer(pipe.preprocess(ROWS[0])["row"]["prompt"])["input_ids"]
    assert quiet(ROWS[0], max_length=len(ids) + 12)[0]["generated_text"] == long
    with pytest.raises(ValueError, match="max_new_token"):
        pipe(ROWS[0], max_new_token=5)


def test_defaults_are_greedy_whatever_the_base_ships(pipe, monkeypatch):
    expected = pipe(ROWS[:4])
    shipped = GenerationConfig(do_sample=True, repetition_penalty=50.0, eos_token_id=2)
    monkeypatch.setattr(pipe.model, "generation_config", shipped)
    assert pipe(ROWS[:4], batch_size=4) == expected


def test_a_task_words_the_question_and_reads_the_answer(pipe, script):
    given = script("0.2471", "no idea", "-0.1")
    found = pipe([{"molecule": m} for m in ("OCC", "C", "[C][C]")], batch_size=3, **GAP)
    assert found == [
        [{"generated_text": "0.2471", "value": 0.2471}],
        [{"generated_text": "no idea", "value": None}],
        [{"generated_text": "-0.1", "value": -0.1}],
    ]
    start, end = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
    question = get_task("property_prediction").question
    for prompt, smiles in zip(given["prompts"], ("CCO", "C", "CC"), strict=True):
        assert prompt.endswith(start + question(smiles, "gap") + end)
        assert prompt.count("<|im_start|>") == 2


def test_an_answer_that_is_cut_off_has_no_value(pipe, script):
    script("0.24", end="")
    assert pipe({"molecule": "CCO"}, **GAP) == [{"generated_text": "0.24", "value": None}]


def test_a_rows_own_keys_come_first(pipe, script):
    given = script("0.1", "0.2", "yes")
    rows = [{"molecule": "C"}, {"molecule": "C", "property": "homo"}, {"text": "Hm?"}]
    found = pipe(rows, batch_size=3, phrasing=2, **GAP)
    assert [row[0].get("value") for row in found] == [0.1, 0.2, None]
    for prompt, words in zip(
        given["prompts"], ("C: HOMO-LUMO gap in", "C: HOMO energy in", "\nHm?<"), strict=True
    ):
        assert words in prompt


def test_medians_of_rows_that_ask_for_numbers(pipe):
    digits = pipe.tokenizer.convert_tokens_to_ids(list("0123456789"))

    def prefer_digits(input_ids, scores):
        scores = scores.clone()
        scores[:, digits] += 20
        return scores

    settings = {"logits_processor": [prefer_digits], "max_new_tokens": 4}
    greedy, median = (
        pipe(ROWS, numbers=kind, batch_size=4, **settings) for kind in ("greedy", "median")
    )
    asked = [row.get("task") == "property_prediction" for row in ROWS]
    assert [one != other for one, other in zip(greedy, median, strict=True)] == asked
    assert greedy == pipe(ROWS, **settings)
    assert pipe(ROWS[:3], numbers="median", logits_processor=None) == pipe(ROWS[:3])
    sampled = pipe(ROWS[0], numbers="median", do_sample=True, num_return_sequences=2)
    assert len(sampled) == 2  # it asks for no number
    assert median == [pipe(row, numbers="median", **settings) for row in ROWS]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"numbers": "mode"}, "numbers='mode' is unknown"),
        ({"numbers": "median", "num_return_sequences": 2, "do_sample": True}, "2 sequences for 1"),
        ({"numbers": "median", "prompt_lookup_num_tokens": 3}, "token by token"),
    ],
)
def test_bad_settings_of_numbers(pipe, settings, message):
    with pytest.raises(ValueError, match=message):
        pipe({"molecule": "CCO"}, **GAP, **settings)


def test_chats(pipe, script):
    chat = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "molecule", "molecule": "CCO"},
                {"type": "text", "text": "Is it soluble?"},
            ],
        },
    ]
    answer = pipe({"molecule": "CCO", "text": "Is it soluble?"})[0]["generated_text"]
    found = pipe(chat[1:])[0]["generated_text"]
    assert found == [*chat[1:], {"role": "assistant", "content": answer}]
    assert pipe(chat[1:], return_full_text=False) == [{"generated_text": answer}]
    expected = pipe(chat)
    assert pipe([chat, chat[1:]], batch_size=2) == [expected, pipe(chat[1:])]
    dataset = KeyDataset([{"messages": chat}, {"messages": chat[1:]}], "messages")
    assert list(pipe(dataset, batch_size=2)) == [expected, pipe(chat[1:])]

    given = script("soluble.")
    begun = [*chat, {"role": "assistant", "content": "It is "}]
    assert pipe(begun)[0]["generated_text"][-1]["content"] == "It is soluble."
    assert given["prompts"][0].endswith("<|im_start|>assistant\nIt is ")


def test_the_question_comes_back_on_request(pipe, script):
    script("yes")
    row = {"molecule": "CCO", "text": "Is it soluble? "}
    assert pipe(row, return_full_text=True) == [{"generated_text": "Is it soluble? yes"}]


def test_a_tokenizer_without_a_chat_template(pipe, processor):
    tokenizer = copy.deepcopy(processor.tokenizer)
    tokenizer.chat_template = None
    plain = MoraProcessor(processor.feature_extractor, tokenizer)
    bare = MoraPipeline(model=pipe.model, processor=plain, max_new_tokens=8)
    assert bare.preprocess(ROWS[0])["row"]["prompt"] == ROWS[0]["text"]
    assert bare(ROWS, batch_size=4) == [bare(row) for row in ROWS]
    with pytest.raises(ValueError, match="This row: the tokenizer has no chat template"):
        bare([{"role": "system", "content": "a"}, {"role": "user", "content": "b"}])


@pytest.mark.parametrize("templated", [True, False])
def test_special_tokens_are_added_once(pipe, processor, monkeypatch, templated):
    """By the chat template, or else by the tokenizer."""
    tokenizer = copy.deepcopy(processor.tokenizer)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    if not templated:
        tokenizer.chat_template = None
    bos = MoraPipeline(
        model=pipe.model, processor=MoraProcessor(processor.feature_extractor, tokenizer)
    )
    prompts = []
    monkeypatch.setattr(
        pipe.model, "generate", lambda input_ids, **_: prompts.append(input_ids) or input_ids
    )
    bos(ROWS[1])
    start = tokenizer.decode(prompts[0][0, :1])
    assert start == ("<|im_start|>" if templated else "<|endoftext|>")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"molecule": "CCO"}, "Row 1: neither text nor task is given: add text=… or a task"),
        ({"molecul": "CCO", "text": "?"}, "Row 1: the key 'molecul' is unknown: use molecule,"),
        ({"text": 3}, "Row 1: text=3 is no string"),
        ({"text": "?", "task": "property_prediction"}, "Row 1: text='\\?' and task='property_"),
        ({"task": "property_prediction", "property": "gap"}, "Row 1: the task .* needs a molecule"),
        ({"molecule": "C", "task": "dance"}, "Row 1: task 'dance': Task 'dance' is unknown: use"),
        ({"molecule": "C", "task": "property_prediction"}, "Row 1: .*missing .*'property'"),
        (
            {"molecule": "C", "task": "property_prediction", "property": "mass"},
            "Row 1: .*Property 'mass' is unknown: use one of homo",
        ),
        ("CCO", "Row 1: 'CCO' is no question: write"),
        ({"molecule": "C(C", "text": "?"}, "Row 1: Molecule 'C\\(C' is not a valid SMILES"),
        ({"molecule": "C(C", **GAP}, "Row 1: Molecule 'C\\(C' is not a valid SMILES"),
        ({"molecule": 7, "text": "?"}, "Row 1: Molecule 7 has type int"),
        ([{"text": "?"}], "Row 1: {'text': '\\?'} is no message of a chat"),
    ],
)
def test_bad_rows_are_errors_before_anything_is_generated(pipe, script, row, message):
    given = script("yes")
    with pytest.raises(ValueError, match=message):
        pipe([ROWS[0], row], batch_size=1)
    assert not given
    with pytest.raises(ValueError, match=message):
        list(pipe((r for r in [ROWS[0], row]), batch_size=1))
    single = message.removeprefix("Row 1: ")
    with pytest.raises(ValueError, match=single):
        pipe.preprocess(row)


def test_bad_molecules_keep_their_own_error(pipe):
    with pytest.raises(MoleculeError, match="Molecule 'C1' is not a valid SMILES"):
        pipe({"molecule": "C1", "text": "?"})
    with pytest.raises(ValueError, match="Task 'dance' is unknown: use one of forward"):
        pipe({"molecule": "C"}, task="dance")


@pytest.mark.parametrize("save_base", [False, True])
def test_from_a_checkpoint_and_saved_again(pipe, tmp_path, save_base):
    """Through `transformers.pipeline`, which finds the task and the code in the checkpoint."""
    expected = pipe(ROWS)
    pipe.save_pretrained(tmp_path / "first", save_base=save_base)
    for source, target in (("first", "second"), ("second", "third")):
        loaded = pipeline(
            model=str(tmp_path / source), trust_remote_code=True, device="cpu", max_new_tokens=8
        )
        assert type(loaded).__name__ == "MoraPipeline"
        assert loaded.task == "molecule-text-to-text"
        assert loaded(ROWS, batch_size=4) == expected
        assert repr(loaded.model.config)
        loaded.save_pretrained(tmp_path / target, save_base=save_base)
    first, third = (
        json.loads((tmp_path / n / "config.json").read_text()) for n in ("first", "third")
    )
    assert first == third
    code = {path.name for path in (tmp_path / "first").glob("*.py")}
    assert {"pipeline_mora.py", "tasks_mora.py", "processing_mora.py", "chat_mora.py"} <= code
    assert code == {path.name for path in (tmp_path / "third").glob("*.py")}


def test_by_task_name_around_a_model(pipe):
    made = pipeline(
        "molecule-text-to-text",
        model=pipe.model,
        processor=pipe.processor,
        device="cpu",
        max_new_tokens=8,
    )
    assert made(ROWS[0]) == pipe(ROWS[0])


def test_answers_that_end_elsewhere(pipe):
    """Without an end token, and with strings that stop."""
    row = {"molecule": "CCO", "text": "Is it soluble in water?"}
    assert pipe(row, eos_token_id=None, max_new_tokens=4)[0]["generated_text"]
    assert pipe(row, stop_strings=["zz"], max_new_tokens=4)[0]["generated_text"]


def test_chats_and_questions_may_be_mixed(pipe):
    chat = [{"role": "user", "content": "Is it soluble in water?"}]
    rows = [chat, {"molecule": "CCO", "text": "Is it soluble in water?"}]
    single = [pipe(row) for row in rows]
    assert pipe(rows, batch_size=2) == single
    assert pipe(rows[::-1], batch_size=2) == single[::-1]


def test_rows_of_a_dataset_its_columns_and_a_series(pipe):
    molecules = ["CCO", "c1ccccc1"]
    expected = pipe(molecules, **GAP)
    dataset = datasets.Dataset.from_dict({"molecule": molecules})
    assert pipe(dataset, **GAP) == expected
    assert pipe(dataset["molecule"], **GAP) == expected
    assert pipe(pd.Series(molecules), **GAP) == expected


def test_message_without_a_role_is_a_clear_error(pipe):
    chat = [{"rol": "user", "content": "?"}]
    for rows, name in ((chat, "This row"), ([chat], "Row 0")):
        with pytest.raises(ValueError, match=f"{name}: .* is no message of a chat"):
            pipe(rows)
