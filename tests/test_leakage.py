# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""What splits share: molecules, stereoisomers, reactions in any direction, questions."""

import io
import json
from pathlib import Path

import pytest
from datasets import Dataset, concatenate_datasets
from rich.console import Console

from modeling_mora.tasks_mora import get_task
from training.data.leakage import LeakError, check_leaks, drop_leaks, find_leaks, leak_table
from training.data.rejections import Rejections

QA = "molecule_qa"
FORWARD, RETRO, REAGENTS = (
    "forward_reaction_prediction",
    "retrosynthesis",
    "reagent_prediction",
)


def split(*rows: tuple[str, str | None, str, str]) -> Dataset:
    """Rows of task, molecule, prompt, answer."""
    columns = zip(*rows, strict=True)
    names = ("task", "molecule", "prompt", "answer")
    return Dataset.from_dict({n: list(c) for n, c in zip(names, columns, strict=True)})


def shared(notation: str = "smiles", **splits: Dataset) -> dict[tuple[str, str, str], int]:
    tasks = {name: get_task(name, notation=notation) for name in (QA, FORWARD, RETRO, REAGENTS)}
    leaks = find_leaks(splits, tasks)
    return {(leak.kind, leak.first, leak.second): leak.shared for leak in leaks}


def test_molecules_with_and_without_stereo():
    left, right, flat = "C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O", "CC(N)C(=O)O"
    found = shared(
        train=split((QA, left, "a", "1"), (QA, left, "b", "2"), (QA, None, "c", "3")),
        validation=split((QA, left, "d", "4")),
        test=split((QA, right, "e", "5"), (QA, flat, "f", "6"), (QA, None, "g", "7")),
    )
    assert found == {
        ("molecule", "train", "validation"): 1,
        ("molecule", "train", "test"): 0,
        ("molecule", "validation", "test"): 0,
        ("molecule, stereo ignored", "train", "validation"): 1,
        ("molecule, stereo ignored", "train", "test"): 1,
        ("molecule, stereo ignored", "validation", "test"): 1,
        ("question and answer", "train", "validation"): 0,
        ("question and answer", "train", "test"): 0,
        ("question and answer", "validation", "test"): 0,
    }


@pytest.mark.parametrize("notation", ["smiles", "selfies"])
def test_a_reaction_is_the_same_in_every_direction(notation: str):
    spell = get_task(FORWARD, notation=notation).spell
    acid, alcohol, ester = "CC(=O)O", "CCO", "CCOC(C)=O"
    found = shared(
        notation,
        train=split((FORWARD, f"{acid}.{alcohol}", "p", spell(ester))),
        validation=split((RETRO, ester, "q", spell(f"{alcohol}.{acid}"))),
        test=split((REAGENTS, f"{acid}.{alcohol}.{ester}", "r", spell("O=S(=O)(O)O"))),
    )
    for pair in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert found[("reaction", *pair)] == 1
        assert found[("molecule", *pair)] == 0
    other = shared(
        train=split((FORWARD, f"{acid}.{alcohol}", "p", ester)),
        test=split((RETRO, ester, "q", f"{acid}.CO")),
    )
    assert other["reaction", "train", "test"] == 0


def test_reactions_without_stereo():
    found = shared(
        train=split((RETRO, "C[C@H](O)F", "p", "CC(O)Cl")),
        test=split((RETRO, "CC(O)F", "q", "C[C@H](O)Cl")),
    )
    assert found["reaction", "train", "test"] == 0
    assert found["reaction, stereo ignored", "train", "test"] == 1


def test_question_and_answer_together():
    found = shared(
        train=split((QA, None, "one", "1"), (QA, None, "two", "2")),
        test=split((QA, None, "one", "1"), (QA, None, "two", "3")),
    )
    assert found == {("question and answer", "train", "test"): 1}


def test_dropping_what_is_in_another_split(tmp_path: Path):
    """Stereoisomers, reactions in the other direction, and across sources; test stays whole."""

    def with_ids(*rows: tuple[str, str | None, str, str]) -> Dataset:
        data = split(*rows)
        return data.add_column("id", [f"row-{i}" for i in range(len(data))])

    acid, alcohol, ester = "CC(=O)O", "CCO", "CCOC(C)=O"
    qa = {
        "train": with_ids(
            (QA, "C[C@H](F)Cl", "a", "1"), (QA, "CO", "b", "1"), (QA, None, "c", "1")
        ),
        "validation": with_ids((QA, "CO", "d", "1"), (QA, "CN", "e", "1")),
        "test": with_ids((QA, "CC(F)Cl", "f", "1"), (QA, "CC(F)Cl", "g", "1")),
    }
    forward = {
        "train": with_ids(
            (FORWARD, f"{acid}.{alcohol}", "h", ester),
            (FORWARD, "CN", "i", "CNC"),
            (QA, None, "e", "1"),
            (QA, None, "e", "2"),
        )
    }
    retro = {"test": with_ids((RETRO, ester, "j", f"{alcohol}.{acid}"))}
    tasks = {name: get_task(name) for name in (QA, FORWARD, RETRO)}
    rejections = [Rejections(name, tmp_path / "rejected.jsonl") for name in ("qa", "fwd", "retro")]
    kept = drop_leaks([qa, forward, retro], tasks, rejections)
    prompts = [{name: list(data["prompt"]) for name, data in one.items()} for one in kept]
    assert prompts == [
        {"train": ["c"], "validation": ["d", "e"], "test": ["f", "g"]},
        {"train": ["e"]},
        {"test": ["j"]},
    ]
    assert [len(one) for one in rejections] == [2, 3, 0]
    lines = map(json.loads, (tmp_path / "rejected.jsonl").read_text().splitlines())
    assert {(line["source"], line["id"], line["reason"]) for line in lines} == {
        ("qa", "row-0", "molecule, stereo ignored is in test too"),
        ("qa", "row-1", "molecule is in validation too"),
        ("fwd", "row-0", "reaction is in test too"),
        ("fwd", "row-1", "molecule is in validation too"),
        ("fwd", "row-2", "question and answer is in validation too"),
    }
    joined = {
        name: concatenate_datasets([one[name] for one in kept if name in one])
        for name in ("train", "validation", "test")
    }
    assert not any(leak.shared for leak in find_leaks(joined, tasks))


def test_leaks_stop_the_run_and_are_shown():
    train = split((QA, "C[C@H](F)Cl", "a", "1"), (QA, "CO", "b", "1"))
    flat = find_leaks({"train": train, "test": split((QA, "CC(F)Cl", "c", "1"))}, {})
    check_leaks(flat)  # stereoisomers are only shown
    leaks = find_leaks(
        {"train": train, "test": split((QA, "CO", "c", "1"), (QA, "CN", "d", "1"))}, {}
    )
    with pytest.raises(LeakError, match="train and test share 1 × molecule, such as 'CO'"):
        check_leaks(leaks)
    screen = io.StringIO()
    Console(file=screen, width=80).print(leak_table("Leaks", leaks))
    assert "1 (50.0%)" in screen.getvalue()
