# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Official, random and scaffold splits."""

import pytest
from datasets import Dataset, DatasetDict

from training.data.splits import (
    count_sizes,
    random_split,
    scaffold_of,
    scaffold_split,
    split_examples,
    without_stereo,
)

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def examples(molecules: list[str | None], ids: list[str] | None = None) -> Dataset:
    return Dataset.from_dict(
        {
            "task": ["molecule_qa"] * len(molecules),
            "prompt": [f"question {n}" for n in range(len(molecules))],
            "answer": ["yes"] * len(molecules),
            "molecule": molecules,
            "id": ids or [str(n) for n in range(len(molecules))],
        }
    )


def chains(*lengths: int) -> DatasetDict:
    return DatasetDict({"all": examples(["C" * n for n in lengths])})


def test_a_molecule_is_never_in_two_random_splits():
    data = split_examples(chains(*range(1, 41), *range(1, 41)), "random", SHARES, seed=3)
    assert {split: len(rows) for split, rows in data.items()} == {
        "train": 64,
        "validation": 8,
        "test": 8,
    }
    molecules = [set(rows["molecule"]) for rows in data.values()]
    assert sum(map(len, molecules)) == len(set.union(*molecules)) == 40


def test_random_test_split_depends_on_seed_and_its_size_alone():
    molecules = ["C" * n for n in range(1, 41)]
    first = random_split(molecules, {"train": 5, "validation": 2, "test": 6}, seed=1)
    again = random_split(molecules, {"validation": 8, "test": 6}, seed=1)
    other = random_split(molecules, {"validation": 8, "test": 6}, seed=2)
    assert first["test"] == again["test"] != other["test"]
    assert [len(first[split]) for split in ("train", "validation", "test")] == [5, 2, 6]
    assert len(again["train"]) == 26  # the rest
    reverse = random_split(molecules[::-1], {"test": 6}, seed=1)
    assert {39 - row for row in reverse["test"]} == set(first["test"])


def test_stereoisomers_are_kept_together_if_asked():
    pairs = [f"C[C@{h}H](O){'C' * n}" for n in range(2, 22) for h in ("", "@")]
    data = DatasetDict({"all": examples(pairs)})
    together = split_examples(data, "random", {"test": 0.5}, ignore_stereo=True)
    flat = [{without_stereo(m) for m in rows["molecule"]} for rows in together.values()]
    assert not flat[0] & flat[1]
    apart = split_examples(data, "random", {"test": 0.5})
    flat = [{without_stereo(m) for m in rows["molecule"]} for rows in apart.values()]
    assert flat[0] & flat[1]


def test_questions_without_a_molecule_are_split_by_themselves():
    data = DatasetDict({"all": examples([None] * 10)})
    assert len(split_examples(data, "random", {"test": 5})["test"]) == 5


def test_scaffold_split_is_that_of_deepchem():
    # Sizes 5, 2, 2 and 1; of the two pairs the one that starts later goes first.
    molecules = [
        "CCO",  # no ring
        "Cc1ccccc1",
        "CC1CC1",
        "CCC",
        "CCC1CC1",
        "CCCC",
        "CCc1ccccc1",
        "CCN",
        "CC1CCC1",
        "CCCl",
    ]
    ids = [str(n) for n in range(10)]
    split = scaffold_split(molecules, ids, {"train": 0.7, "validation": 0.2, "test": 0.1})
    assert split == {"train": [0, 2, 3, 4, 5, 7, 9], "validation": [1, 6], "test": [8]}
    # Where the next set does not fit, a smaller one still does.
    split = scaffold_split(molecules, ids, {"train": 0.6, "validation": 0.2, "test": 0.2})
    assert split == {"train": [0, 3, 5, 7, 8, 9], "validation": [2, 4], "test": [1, 6]}
    assert split == scaffold_split(molecules, ids, {"validation": 2, "test": 2})
    assert split == scaffold_split(molecules, ids, {"validation": 0.2, "test": 0.2})


def test_scaffold_sizes_count_rows_not_questions():
    molecules = [m for m in ["CCO", "CCC", "CC1CC1", "Cc1ccccc1"] for _ in range(3)]
    ids = [str(n) for n in range(4) for _ in range(3)]
    split = scaffold_split(molecules, ids, {"train": 2, "validation": 1, "test": 1})
    assert [len(rows) for rows in split.values()] == [6, 3, 3]


def test_scaffolds_have_no_chirality():
    cis, trans = "CC1CC[C@@H]2CCCC[C@@H]2C1", "CC1CC[C@H]2CCCC[C@@H]2C1"
    assert scaffold_of(cis) == scaffold_of(trans) == "C1CCC2CCCCC2C1"
    assert scaffold_of("CCO") == ""


def test_official_splits_stay_and_a_missing_one_is_cut_from_training():
    data = DatasetDict(
        {"train": examples(["C" * n for n in range(1, 21)] * 2), "test": examples(["N"])}
    )
    assert {k: len(v) for k, v in split_examples(data).items()} == {"train": 40, "test": 1}
    cut = split_examples(data, sizes={"validation": 0.1})
    assert list(cut) == ["train", "validation", "test"]
    assert [len(rows) for rows in cut.values()] == [36, 4, 1]
    assert not set(cut["train"]["molecule"]) & set(cut["validation"]["molecule"])
    joined = split_examples(data, "random", {"test": 2})
    assert len(joined["train"]) + len(joined["test"]) == 41


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "official"}, "no official splits, only 'all'"),
        ({"method": "by date"}, "'by date' is unknown: use one of official, random, scaffold"),
        ({"method": "random", "sizes": {"dev": 0.1}}, "'dev' is unknown"),
        ({"method": "random", "sizes": {"test": 1.5}}, "1.5 is no share"),
        ({"method": "random", "sizes": {"test": "10%"}}, "'10%' is no size"),
        ({"method": "random", "sizes": {"test": -1}}, "-1 is no size"),
        ({"method": "random", "sizes": {"test": 30}}, "ask for 30 molecules, but there are 20"),
        ({"method": "scaffold", "sizes": {"train": 3, "test": 3}}, "take 6 of 20 rows"),
    ],
)
def test_impossible_splits(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        split_examples(chains(*range(1, 21)), **arguments)


def test_official_sizes_only_for_missing_splits():
    data = DatasetDict({"train": examples(["C"]), "test": examples(["N"])})
    with pytest.raises(ValueError, match="the source has its own test"):
        split_examples(data, sizes={"test": 0.1})


def test_shares_of_a_whole_lose_no_molecule():
    for total in range(1, 200):
        assert sum(count_sizes(SHARES, total, "rows").values()) == total


@pytest.mark.parametrize(
    ("smiles", "flat"),
    [
        ("C[C@H](N)C(=O)O", "CC(N)C(=O)O"),
        ("F/C=C/F", "FC=CF"),
        ("[H]/N=C(/C)O", "CC(=N)O"),
        ("CCO", "CCO"),
    ],
)
def test_without_stereo(smiles: str, flat: str):
    assert without_stereo(smiles) == flat
