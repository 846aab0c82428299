# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The example that prepare prints of each source."""

import pytest
from rich.console import Console

from modeling_mora import MoleculeFeatureExtractor
from modeling_mora.tasks_mora import get_task
from training.data.example_report import example_table
from training.tokenization import ExampleTooLongError


def printed(example: dict, tokenizer, max_length: int = 1000, **settings) -> dict[str, list[str]]:
    """The lines of each field."""
    example = {"id": "row-7", "source": "mine", "property": None, **example}
    task = get_task(example["task"], **settings)
    console = Console(width=200)
    with console.capture() as capture:
        console.print(
            example_table(example, task, tokenizer, MoleculeFeatureExtractor(), max_length)
        )
    fields, field = {}, ""
    for line in capture.get().splitlines():
        if line.startswith("│"):
            _, name, text, _ = line.split("│")
            field = name.strip() or field
            fields.setdefault(field, []).append(text.strip())
    return fields


def test_a_number_from_molecule_to_labels_and_back(tokenizer):
    example = {"task": "property_prediction", "property": "gap", "molecule": "c1cc[nH]c1"}
    prompt = "HOMO-LUMO gap of c1cc[nH]c1 in hartree?"
    fields = printed(example | {"prompt": prompt, "answer": "0.2471"}, tokenizer)
    assert fields["row"] == ["row-7"]
    assert fields["question"] == [prompt]  # brackets are no markup
    assert fields["graph"] == ["c1cc[nH]c1", "5 atoms, 5 bonds"]
    head, *tokens = fields["tokens"]
    assert head.endswith(", 7 of them with loss:")
    assert tokens == ["'0' '.' '2' '4' '7' '1' '<|im_end|>'"]
    assert fields["labels decoded"] == ["0.2471"]
    assert fields["read as"] == ["0.2471"]


def test_a_long_answer_is_shortened_but_read_whole(tokenizer):
    answer = "The molecule is an alcohol. " * 3 + "It boils."
    example = {"task": "molecule_captioning", "molecule": None, "prompt": "What?"}
    fields = printed(example | {"answer": answer}, tokenizer)
    assert fields["graph"] == ["none"]
    assert "… 70 more …" in fields["tokens"][-1]
    assert fields["tokens"][-1].endswith("'.' '<|im_end|>'")
    assert fields["labels decoded"] == [answer]
    assert fields["read as"] == [repr(answer)]


def test_it_shows_what_training_gets(tokenizer):
    example = {"task": "retrosynthesis", "molecule": "CCO", "prompt": "From?", "answer": "[C][C]"}
    fields = printed(example, tokenizer, notation="selfies")
    assert fields["read as"] == ["'CC'"]
    with pytest.raises(ExampleTooLongError):
        printed(example, tokenizer, max_length=5)
