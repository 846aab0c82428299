# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Texts, conversations and molecules to model inputs, and the processor's way to disk and back."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import byte_tokenizer
from rdkit import Chem

from modeling_mora import MoleculeError, MoleculeFeatureExtractor, MoraProcessor

GRAPH_NAMES = MoleculeFeatureExtractor.model_input_names


def ask(*molecules: object) -> list[dict]:
    content = [{"type": "molecule", "molecule": molecule} for molecule in molecules]
    return [{"role": "user", "content": [*content, {"type": "text", "text": "How wide is it?"}]}]


def assert_equal_tensors(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name


def test_texts_and_molecules(processor):
    batch = processor(text=["Hi", "Hello"], molecules=["CCO", None], return_tensors="pt")
    assert list(batch) == ["input_ids", "attention_mask", *GRAPH_NAMES]
    assert set(batch) <= set(processor.model_input_names)
    assert batch["attention_mask"].tolist() == [[0, 0, 0, 1, 1], [1] * 5]
    assert processor.batch_decode(batch["input_ids"], skip_special_tokens=True) == ["Hi", "Hello"]
    assert processor.decode(batch["input_ids"][1]) == "Hello"
    assert batch["graph_atom_mask"].tolist() == [[True] * 3, [False] * 3]


def test_one_text_and_one_molecule_are_a_batch_of_one(processor):
    batch = processor(text="Hi", molecules="CCO", return_tensors="pt")
    assert_equal_tensors(batch, processor(text=["Hi"], molecules=["CCO"], return_tensors="pt"))
    assert batch["input_ids"].shape[0] == batch["graph_atoms"].shape[0] == 1
    from_mol = processor(text="Hi", molecules=Chem.MolFromSmiles("OCC"), return_tensors="pt")
    assert_equal_tensors(from_mol, batch)


def test_text_or_molecules_alone(processor):
    assert list(processor(text="Hi")) == ["input_ids", "attention_mask"]
    assert list(processor(molecules=["C", "CC"])) == GRAPH_NAMES
    with pytest.raises(ValueError, match="Neither text nor molecules"):
        processor()


def test_tokenizer_arguments_pass_through(processor):
    batch = processor(text=["Hi", "Hello"], padding="max_length", max_length=9, return_tensors="pt")
    assert batch["input_ids"].shape == (2, 9)
    assert processor(text=["Hi", "Hello"], truncation=True, max_length=1)["attention_mask"] == [
        [1],
        [1],
    ]


@pytest.mark.parametrize("molecules", ["CCO", ["CCO"], ["C", "C", "C"], []])
def test_not_one_molecule_for_each_text(processor, molecules):
    count = 1 if molecules == "CCO" else len(molecules)
    with pytest.raises(ValueError, match=f"2 texts but {count} molecules"):
        processor(text=["Hi", "Hello"], molecules=molecules)


def test_bad_molecule_names_its_row(processor):
    with pytest.raises(MoleculeError, match="^Row 1: Molecule 'C1CC'"):
        processor(text=["Hi", "Hello"], molecules=["C", "C1CC"])
    with pytest.raises(MoleculeError, match="^Row 1: Molecule 'C1CC'"):
        processor.apply_chat_template([ask("C"), ask("C", "C1CC")], tokenize=True)


def test_chat_template_takes_the_molecule_out_of_the_text(processor):
    prompt = processor.apply_chat_template(ask("CCO"), add_generation_prompt=True)
    assert prompt == ("<|im_start|>user\nHow wide is it?<|im_end|>\n<|im_start|>assistant\n")
    plain = [{"role": "user", "content": "How wide is it?"}]
    assert processor.apply_chat_template(plain, add_generation_prompt=True) == prompt
    assert processor.apply_chat_template([ask("CCO"), plain], add_generation_prompt=True) == (
        [prompt] * 2
    )


def test_chat_template_joins_text_entries_in_place(processor):
    conversation = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Is "},
                {"type": "molecule", "molecule": "CCO"},
                {"type": "text", "text": "this wet?"},
            ],
        },
    ]
    before = repr(conversation)
    assert processor.apply_chat_template(conversation) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nIs this wet?<|im_end|>\n"
    )
    assert repr(conversation) == before


def test_tokenized_chat_is_what_a_call_with_its_prompt_gives(processor):
    conversations = [ask("CCO"), ask(), ask("c1ccccc1")]
    prompts = processor.apply_chat_template(conversations, add_generation_prompt=True)
    expected = processor(
        text=prompts,
        molecules=["CCO", None, "c1ccccc1"],
        return_tensors="pt",
        add_special_tokens=False,
    )
    settings = {"tokenize": True, "return_tensors": "pt", "add_generation_prompt": True}
    batch = processor.apply_chat_template(conversations, return_dict=True, **settings)
    assert_equal_tensors(batch, expected)
    ids = processor.apply_chat_template(conversations, return_dict=False, **settings)
    assert torch.equal(ids, expected["input_ids"])
    single = processor.apply_chat_template(ask("CCO"), **settings)
    one_batch = processor.apply_chat_template([ask("CCO")], **settings)
    assert_equal_tensors(single, one_batch)
    without = processor.apply_chat_template(ask(None), **settings)
    assert not without["graph_atom_mask"].any()
    assert_equal_tensors(processor.apply_chat_template(ask(None, "CCO"), **settings), single)


def test_molecules_of_a_conversation_are_components_of_one_graph(processor):
    conversation = [
        *ask("CCO", "InChI=1S/CH4/h1H4"),
        {"role": "assistant", "content": "Wide."},
        *ask(Chem.MolFromSmiles("O")),
    ]
    settings = {"tokenize": True, "return_tensors": "pt"}
    batch = processor.apply_chat_template(conversation, **settings)
    expected = processor.feature_extractor("CCO.C.O", return_tensors="pt")
    assert_equal_tensors({name: batch[name] for name in GRAPH_NAMES}, dict(expected))


@pytest.mark.parametrize(
    "entry", [{"type": "image", "url": "a.png"}, {"type": "molecule"}, {"text": "Hi"}, "Hi"]
)
def test_unknown_content_is_refused(processor, entry):
    for tokenize in (False, True):
        with pytest.raises(ValueError, match="The user message holds the entry"):
            processor.apply_chat_template([{"role": "user", "content": [entry]}], tokenize=tokenize)


def test_empty_conversation_is_refused(processor):
    with pytest.raises(ValueError, match="conversation is empty"):
        processor.apply_chat_template([])


def test_tokenizer_is_made_ready_for_generation():
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = None
    tokenizer.padding_side = "right"
    size = len(tokenizer)
    MoraProcessor(MoleculeFeatureExtractor(), tokenizer)
    assert tokenizer.padding_side == "left"
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    assert len(tokenizer) == size


def test_chat_template_is_the_tokenizers():
    tokenizer = byte_tokenizer()
    processor = MoraProcessor(MoleculeFeatureExtractor(), tokenizer)
    assert processor.chat_template == tokenizer.chat_template
    processor.chat_template = "{{ messages[0]['content'] }}!"
    assert tokenizer.chat_template == "{{ messages[0]['content'] }}!"
    assert processor.apply_chat_template(ask("C")) == "How wide is it?!"
    own = MoraProcessor(MoleculeFeatureExtractor(), tokenizer, chat_template="Always this.")
    assert own.apply_chat_template(ask("C")) == "Always this."


def test_arguments_in_the_wrong_order_are_refused():
    with pytest.raises(TypeError, match="feature_extractor"):
        MoraProcessor(byte_tokenizer(), MoleculeFeatureExtractor())


def test_save_and_load(tmp_path):
    tokenizer = byte_tokenizer()
    processor = MoraProcessor(MoleculeFeatureExtractor(max_atoms=7), tokenizer)
    processor.chat_template = "{{ messages[0]['content'] }}!"
    processor.save_pretrained(tmp_path)
    loaded = MoraProcessor.from_pretrained(tmp_path)
    assert loaded.feature_extractor.max_atoms == 7
    assert loaded.apply_chat_template(ask("C")) == "How wide is it?!"


REMOTE = """
import sys
import torch
from transformers import AutoFeatureExtractor, AutoProcessor, AutoTokenizer

first, second = sys.argv[1:]
for path in (first, second):
    processor = AutoProcessor.from_pretrained(path, trust_remote_code=True)
    for part in (processor, processor.feature_extractor):
        assert type(part).__module__.startswith("transformers_modules."), type(part)
    extractor = AutoFeatureExtractor.from_pretrained(path, trust_remote_code=True)
    assert type(extractor) is type(processor.feature_extractor)
    assert extractor.max_atoms == processor.feature_extractor.max_atoms == 7
    tokenizer = AutoTokenizer.from_pretrained(path)
    question = {"role": "user", "content": [
        {"type": "molecule", "molecule": "CCO"}, {"type": "text", "text": "How wide is it?"}]}
    batch = processor.apply_chat_template([question], tokenize=True, return_tensors="pt")
    torch.save(dict(batch), path + "/batch.pt")
    assert tokenizer(tokenizer.decode(batch["input_ids"][0]))["input_ids"] == (
        batch["input_ids"][0].tolist())
    if path == first:
        processor.save_pretrained(second)
assert "modeling_mora" not in sys.modules
"""


def test_loads_as_remote_code_in_a_process_without_the_package(tmp_path):
    """Saved, loaded, saved from there and loaded again, each time from the files alone."""
    processor = MoraProcessor(MoleculeFeatureExtractor(max_atoms=7), byte_tokenizer())
    first, second = tmp_path / "first", tmp_path / "second"
    processor.save_pretrained(first)
    run_isolated(REMOTE, tmp_path, str(first), str(second))
    expected = processor.apply_chat_template(ask("CCO"), tokenize=True, return_tensors="pt")
    for path in (first, second):
        assert_equal_tensors(torch.load(path / "batch.pt", weights_only=True), dict(expected))


def run_isolated(code: str, folder: Path, *arguments: str) -> None:
    """Run code in a new process that sees neither this checkout nor the Hub."""
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": str(folder / "modules"),
    }
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
