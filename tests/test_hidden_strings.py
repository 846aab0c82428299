# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Training questions without their molecule's string: which, and that nothing else changes."""

import json
from pathlib import Path

import pytest
from datasets import Dataset
from scipy.stats import binomtest
from test_finetune import recipe  # noqa: F401  (a fixture)
from test_qm9 import small_qm9  # noqa: F401  (a fixture)

from modeling_mora.tasks_mora import get_task
from training.arguments import parse_arguments
from training.finetune import main, make_trainer
from training.hidden_strings import hide_strings

ROWS = [
    {
        "task": "property_prediction",
        "prompt": f"HOMO energy of {'C' * (i % 20 + 1)} in hartree?",
        "answer": f"0.{i:04d}",
        "molecule": "C" * (i % 20 + 1),
        "id": f"m{i}",
        "source": "s",
        "property": "homo",
        "group": None,
    }
    for i in range(2000)
]
HIDDEN = "HOMO energy of this molecule in hartree?"


def hide(rows: list[dict], share: float = 0.3, seed: int = 0) -> list[dict]:
    return hide_strings(Dataset.from_list(rows), share, seed, get_task).to_list()


def ids(rows: list[dict]) -> set[str]:
    return {row["id"] for row in rows if row["prompt"] == HIDDEN}


def test_a_share_of_the_prompts_changes_and_nothing_else(capsys: pytest.CaptureFixture[str]):
    hidden = hide(ROWS)
    for row, before in zip(hidden, ROWS, strict=True):
        assert row | {"prompt": None} == before | {"prompt": None}
        assert row["prompt"] in (before["prompt"], HIDDEN)
    drawn = len(ids(hidden))
    assert binomtest(drawn, len(ROWS), 0.3).pvalue > 1e-3
    assert f"{drawn} of 2,000 training questions do not hold" in capsys.readouterr().out
    assert len(ids(hide(ROWS, 0))) == 0
    assert len(ids(hide(ROWS, 1))) == len(ROWS)


def test_the_seed_and_the_row_alone_decide():
    drawn = ids(hide(ROWS))
    assert ids(hide(ROWS[::-1])) == drawn
    assert ids(hide(ROWS[500:700])) == drawn & {row["id"] for row in ROWS[500:700]}
    assert ids(hide(ROWS, 0.2)) < drawn < ids(hide(ROWS, 0.5))
    other = ids(hide(ROWS, seed=1))
    assert 0.2 < len(other & drawn) / len(drawn) < 0.4  # drawn independently


def test_rows_of_one_molecule_are_drawn_one_by_one():
    row = ROWS[0] | {"molecule": "CC", "prompt": "HOMO of CC?"}
    rows = [row | {"property": str(number)} for number in range(400)]
    hidden = [row["prompt"] for row in hide(rows, 0.5)]
    assert 100 < hidden.count("HOMO of this molecule?") < 300


def test_a_row_without_a_molecule_stays():
    rows = [ROWS[0] | {"molecule": None}, ROWS[1]]
    assert [row["prompt"] for row in hide(rows, 1)] == [ROWS[0]["prompt"], HIDDEN]


def test_rows_that_were_selected_keep_their_order():
    dataset = Dataset.from_list(ROWS).select([7, 3, 5])
    hidden = hide_strings(dataset, 1, 0, get_task)
    assert [(row["id"], row["prompt"]) for row in hidden] == [(f"m{i}", HIDDEN) for i in (7, 3, 5)]


def test_a_question_without_its_molecule_is_named():
    with pytest.raises(ValueError, match=r"Row 1: the question 'HOMO\?' does not spell 'CC'"):
        hide([ROWS[0], ROWS[1] | {"prompt": "HOMO?"}], 1)


@pytest.fixture
def half(recipe: Path) -> Path:  # noqa: F811
    """The recipe of a small run, with half of its questions to be hidden."""
    settings = json.loads(recipe.read_text()) | {"hide_string": 0.5, "seed": 3}
    recipe.write_text(json.dumps(settings))
    return recipe


def questions(recipe: Path, *flags: str) -> tuple[list[str], list[str]]:  # noqa: F811
    """What a run trains on and what it validates on, as text."""
    trainer = make_trainer(*parse_arguments([str(recipe), *flags]))
    decode = trainer.processing_class.tokenizer.decode
    train, validation = trainer.train_dataset, trainer.eval_dataset
    return [decode(ids) for ids in train["input_ids"]], [
        decode(ids) for ids in validation["input_ids"]
    ]


@pytest.mark.usefixtures("small_qm9")
def test_all_methods_and_starts_train_on_the_same_questions(half: Path):
    train, validation = questions(half)
    spelled, also_spelled = questions(half, "--hide_string", "0")
    hidden = ["this molecule" in text for text in train]
    assert 0 < sum(hidden) < len(train) == 8
    for text, before, is_hidden in zip(train, spelled, hidden, strict=True):
        assert (text != before) == is_hidden
    assert validation == also_spelled and not any("this molecule" in t for t in validation)
    assert questions(half, "--method", "graph_prefix") == (train, validation)
    assert questions(half, "--seed", "4")[0] != train
    main([str(half)])
    assert questions(half, "--resume_from_checkpoint", "true") == (train, validation)


@pytest.mark.parametrize("method", ["lora", "full_finetune"])
def test_methods_that_read_no_graphs_need_the_string(
    method: str, half: Path, capsys: pytest.CaptureFixture[str]
):
    flags = [str(half), "--method", method]
    _, data_args, _ = parse_arguments(flags)
    assert data_args.hide_string == 0
    assert f"method={method} does not use" in (printed := capsys.readouterr().out)
    assert "hide_string" in printed
    with pytest.raises(SystemExit, match=f"hide_string=0.3 means nothing to method={method}"):
        main([*flags, "--hide_string", "0.3"])


def test_lora_of_as_many_parameters_needs_the_string_too(half: Path):
    _, data_args, _ = parse_arguments([str(half), "--method=lora", "--lora_match=parameters"])
    assert data_args.hide_string == 0


@pytest.mark.parametrize("share", ["-0.1", "1.5", "nan"])
def test_a_share_is_from_0_to_1(share: str, half: Path):
    with pytest.raises(ValueError, match=f"hide_string={share}: give a share from 0 to 1"):
        parse_arguments([str(half), f"--hide_string={share}"])
