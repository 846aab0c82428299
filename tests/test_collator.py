# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Tokenised examples and batches: what carries loss, where padding goes, whose graph is whose."""

import pytest
import torch
from conftest import byte_tokenizer
from datasets import Dataset

from training.collator import MoraCollator
from training.tokenization import ExampleTooLongError, tokenize_dataset, tokenize_example

ROWS = [
    {"prompt": "Gap of CCO?", "answer": "0.2471", "molecule": "CCO"},
    {"prompt": "HOMO of c1ccccc1, please?", "answer": "-0.24610", "molecule": "c1ccccc1"},
    {"prompt": "Hello!", "answer": "Hi.", "molecule": None},
]


@pytest.fixture
def features(tokenizer) -> list[dict]:
    return tokenize_dataset(Dataset.from_list(ROWS), tokenizer, max_length=256).to_list()


def test_only_answer_and_end_of_turn_carry_loss(tokenizer, features):
    for row, example in zip(ROWS, features, strict=True):
        carrying = [label for label in example["labels"] if label != -100]
        assert tokenizer.decode(carrying) == row["answer"] + "<|im_end|>"
        assert example["labels"][-len(carrying) :] == carrying
        assert example["input_ids"][-len(carrying) :] == carrying


def test_prompt_is_what_generation_starts_from(processor, features):
    for row, example in zip(ROWS, features, strict=True):
        content = [{"type": "text", "text": row["prompt"]}]
        if row["molecule"] is not None:
            content.insert(0, {"type": "molecule", "molecule": row["molecule"]})
        prompt = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )["input_ids"][0].tolist()
        assert example["input_ids"][: len(prompt)] == prompt
        assert set(example["labels"][: len(prompt)]) == {-100}
        assert example["labels"][len(prompt)] != -100


def test_batch_is_padded_on_the_left_and_cut_to_the_answers(processor, features):
    batch = MoraCollator(processor)(features)
    longest = len("-0.24610") + 1  # the answer's bytes and the end-of-turn token
    width = batch["input_ids"].shape[1]
    assert batch["logits_to_keep"].tolist() == list(range(width - longest - 1, width))
    assert batch["labels"].shape == (3, longest + 1)
    assert batch["input_ids"].shape == batch["attention_mask"].shape
    for row, example in enumerate(features):
        length = len(example["input_ids"])
        assert batch["input_ids"][row, -length:].tolist() == example["input_ids"]
        assert batch["attention_mask"][row].sum() == batch["attention_mask"][row, -length:].sum()
        assert batch["attention_mask"][row].sum() == length
    answers = [row[row != -100] for row in batch["labels"]]
    decoded = processor.tokenizer.batch_decode(answers, skip_special_tokens=True)
    assert decoded == [row["answer"] for row in ROWS]


def test_graph_tensors_belong_to_their_rows(processor, features):
    batch = MoraCollator(processor)(features)
    assert batch["graph_atom_mask"].sum(dim=1).tolist() == [3, 6, 0]
    alone = MoraCollator(processor)(features[1:2])
    torch.testing.assert_close(batch["graph_atoms"][1, :6], alone["graph_atoms"][0])


def test_a_batch_of_text_alone(processor, features):
    batch = MoraCollator(processor)(features)
    text = MoraCollator(processor, graphs=False)(features)
    assert text.keys() == {name for name in batch if not name.startswith("graph_")}
    assert torch.equal(text["input_ids"], batch["input_ids"])


def test_loss_is_that_of_the_full_sequence(processor, features, make_model):
    model = make_model()
    batch = MoraCollator(processor)(features)
    full_labels = torch.full_like(batch["input_ids"], -100)
    full_labels[:, batch["logits_to_keep"]] = batch["labels"]
    cut_loss = model(**batch).loss
    full_loss = model(**{**batch, "labels": full_labels, "logits_to_keep": 0}).loss
    torch.testing.assert_close(cut_loss, full_loss)


def test_too_long_examples_are_left_out_and_counted(tokenizer, capsys):
    lengths = [
        len(e["input_ids"]) for e in tokenize_dataset(Dataset.from_list(ROWS), tokenizer, 256)
    ]
    kept = tokenize_dataset(Dataset.from_list(ROWS), tokenizer, max_length=max(lengths) - 1)
    assert kept["molecule"][:] == ["CCO", None]
    assert "1 of 3 examples are longer than max_length" in capsys.readouterr().out


def test_several_processes_find_the_same(tokenizer, capsys):
    alone, shared = (
        tokenize_dataset(Dataset.from_list(ROWS), tokenizer, 256, num_proc=number)
        for number in (1, 2)
    )
    assert len(alone) == len(ROWS) and shared.to_list() == alone.to_list()
    assert capsys.readouterr().err.count("Tokenizing (num_proc=2): 100%") == 1


def test_max_length_too_short_for_all(tokenizer):
    with pytest.raises(ExampleTooLongError, match="max_length=5, but an example takes .* tokens"):
        tokenize_dataset(Dataset.from_list(ROWS), tokenizer, max_length=5)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "has no chat template"),
        ("{{ messages[0]['content'] }}", "leaves the assistant's turn out"),
        ("{{ messages[-1]['content'] | upper }}", "leaves the assistant's turn out or rewrites"),
        (
            "{% for message in messages %}{{ message['content'] }}{% endfor %}",
            "cannot learn to stop",
        ),
    ],
)
def test_unusable_chat_templates(template, message):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(ValueError, match=message):
        tokenize_example("Gap of CCO?", "0.2471", tokenizer, 100)
