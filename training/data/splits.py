# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Train, validation and test: as published, at random over molecules, or by scaffold.

A molecule here is the canonical SMILES of what becomes the graph, for a reaction all that is in it.
"""

import random
from collections.abc import Mapping, Sequence

import pandas as pd
from datasets import Dataset, DatasetDict, concatenate_datasets
from rdkit import Chem, rdBase
from rdkit.Chem.Scaffolds import MurckoScaffold

SPLITS = ("train", "validation", "test")
METHODS = ("official", "random", "scaffold")
DEFAULT_SIZES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def split_examples(
    dataset: DatasetDict,
    method: str = "official",
    sizes: Mapping[str, float | int] | None = None,
    seed: int = 0,
    ignore_stereo: bool = False,
) -> DatasetDict:
    """Split examples.

    Args:
        dataset: splits as from `build_examples`.
        method: `"official"` keeps the splits of the source; with `sizes` it takes those named there
            and missing, such as `{"validation": 0.05}`, at random out of the training molecules.
            `"random"` puts each molecule into one split. `"scaffold"` is DeepChem's scaffold split.
            The latter two join all splits of the source first.
        sizes: size by split, a float below 1 as a share or an int as a count; of molecules for a
            random split, of rows of the source for a scaffold split, as DeepChem counts. What is
            not named there goes to `train`. By default 80, 10 and 10%.
        seed: seed of a random split.
        ignore_stereo: keep the stereoisomers of a molecule together in a random split.

    Returns:
        The splits that are not empty, in the order of `SPLITS`.

    Raises:
        ValueError: an unknown method, sizes that cannot be had, or no official splits.
    """
    if method not in METHODS:
        raise ValueError(f"split method {method!r} is unknown: use one of {', '.join(METHODS)}.")
    if method == "official":
        splits = _official(dataset, sizes or {}, seed, ignore_stereo)
    else:
        whole = concatenate_datasets(list(dataset.values()))
        sizes = DEFAULT_SIZES if sizes is None else sizes
        if method == "random":
            assigned = random_split(_molecules(whole, ignore_stereo), sizes, seed)
        else:
            assigned = scaffold_split(whole["molecule"][:], whole["id"][:], sizes)
        splits = {split: whole.select(rows) for split, rows in assigned.items()}
    return DatasetDict({split: splits[split] for split in SPLITS if len(splits.get(split, []))})


def random_split(
    molecules: Sequence[str], sizes: Mapping[str, float | int], seed: int = 0
) -> dict[str, list[int]]:
    """Assign rows to splits, all rows of a molecule to the same one.

    The test split depends on the molecules, the seed and its own size alone, so runs with more or
    less training data share it.

    Args:
        molecules: one for each row, equal strings for the same.
        sizes: shares or counts of molecules, see `split_examples`.
        seed: seed of the order.

    Returns:
        Row numbers by split, in ascending order.

    Raises:
        ValueError: sizes that cannot be had.
    """
    order = sorted(set(molecules))
    random.Random(seed).shuffle(order)
    counts = count_sizes(sizes, len(order), "molecules")
    split_of: dict[str, str] = {}
    start = 0
    for split in ("test", "validation", "train"):
        split_of |= dict.fromkeys(order[start : start + counts[split]], split)
        start += counts[split]
    splits: dict[str, list[int]] = {split: [] for split in SPLITS}
    for row, molecule in enumerate(molecules):
        if molecule in split_of:
            splits[split_of[molecule]].append(row)
    return splits


def scaffold_split(
    molecules: Sequence[str], ids: Sequence[str], sizes: Mapping[str, float | int]
) -> dict[str, list[int]]:
    """DeepChem's scaffold split, which has no seed.

    Molecules with the same Bemis–Murcko scaffold (without chirality) stay together. The sets are
    taken from large to small, of equally large ones first the one that starts later; each goes to
    training if it still fits there, otherwise to validation if it fits there, otherwise to test.

    Args:
        molecules: SMILES for each example.
        ids: the row of the source that each example comes from; sizes count these, however many
            questions a row gives.
        sizes: shares or counts of rows, see `split_examples`; they cover everything.

    Returns:
        Example numbers by split, in ascending order.

    Raises:
        ValueError: sizes that cannot be had, or that leave rows over.
    """
    table = pd.DataFrame({"id": ids, "molecule": molecules})
    scaffolds = {molecule: scaffold_of(molecule) for molecule in table["molecule"].unique()}
    table["scaffold"] = table["molecule"].map(scaffolds)
    table["row"] = pd.factorize(table["id"])[0]
    total = int(table["row"].max()) + 1 if len(table) else 0
    counts = count_sizes(sizes, total, "rows")
    if sum(counts.values()) != total:
        raise ValueError(
            f"sizes={dict(sizes)} take {sum(counts.values())} of {total} rows, but a scaffold "
            "split covers all: leave train out, or let the shares add up to 1."
        )
    sets = table.groupby("scaffold")["row"].agg(size="nunique", first="min")
    sets = sets.sort_values(["size", "first"], ascending=False)
    train_cutoff = counts["train"]
    validation_cutoff = counts["train"] + counts["validation"]
    # DeepChem does not round the shares: rounded, a set may just fit or just not.
    if all(isinstance(size, float) for size in sizes.values()):
        shares = {split: sizes.get(split, 0.0) for split in SPLITS}
        train = sizes.get("train", 1.0 - sum(shares.values()))
        train_cutoff = train * total
        validation_cutoff = (train + shares["validation"]) * total
    in_train = in_validation = 0
    split_of = {}
    for scaffold, size in sets["size"].items():
        if in_train + size <= train_cutoff:
            split_of[scaffold], in_train = "train", in_train + size
        elif in_train + in_validation + size <= validation_cutoff:
            split_of[scaffold], in_validation = "validation", in_validation + size
        else:
            split_of[scaffold] = "test"
    assigned = table["scaffold"].map(split_of)
    return {split: assigned.index[assigned == split].tolist() for split in SPLITS}


def scaffold_of(smiles: str) -> str:
    """SMILES of the Bemis–Murcko scaffold without chirality; empty for a molecule without rings."""
    with rdBase.BlockLogs():
        return MurckoScaffold.MurckoScaffoldSmiles(
            mol=Chem.MolFromSmiles(smiles), includeChirality=False
        )


def without_stereo(smiles: str) -> str:
    """Canonical SMILES of a molecule with all its stereo centres and double bonds undefined."""
    if not any(mark in smiles for mark in "@/\\"):
        return smiles
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
        Chem.RemoveStereochemistry(mol)
        # Hydrogens that were written for the sake of a double bond.
        return Chem.MolToSmiles(Chem.RemoveHs(mol))


def count_sizes(sizes: Mapping[str, float | int], total: int, unit: str) -> dict[str, int]:
    """Turn shares into counts; `train` takes the rest if it is not named.

    Args:
        sizes: shares (float from 0 to 1) or counts (int) by split.
        total: what there is to share.
        unit: what is counted, for the error message.

    Raises:
        ValueError: an unknown split, a negative size or more than there is.
    """
    counts = {}
    for split, size in sizes.items():
        if split not in SPLITS:
            raise ValueError(f"split {split!r} is unknown: use some of {', '.join(SPLITS)}.")
        share = isinstance(size, float)
        if isinstance(size, bool) or not isinstance(size, int | float) or size < 0:
            raise ValueError(f"{split}: {size!r} is no size: give a share such as 0.1 or a count.")
        if share and size > 1:
            raise ValueError(f"{split}: {size} is no share: give one from 0 to 1, or an integer.")
        counts[split] = round(size * total) if share else size
    # Shares that make a whole lose nothing to rounding.
    shares = all(isinstance(size, float) for size in sizes.values())
    whole = shares and set(sizes) >= {"train"} and abs(sum(sizes.values()) - 1) < 1e-9
    rest = total - sum(count for split, count in counts.items() if split != "train")
    if "train" not in counts or whole:
        counts["train"] = max(rest, 0)
    if sum(counts.values()) > total:
        raise ValueError(
            f"sizes={dict(sizes)} ask for {sum(counts.values())} {unit}, but there are {total}."
        )
    return {split: counts.get(split, 0) for split in SPLITS}


def _molecules(dataset: Dataset, ignore_stereo: bool) -> list[str]:
    """What may not be in two splits; a question without a molecule stands for itself."""
    molecules = [
        prompt if molecule is None else molecule
        for molecule, prompt in zip(dataset["molecule"][:], dataset["prompt"][:], strict=True)
    ]
    if ignore_stereo:
        flat = {molecule: without_stereo(molecule) for molecule in set(molecules)}
        return [flat[molecule] for molecule in molecules]
    return molecules


def _official(
    dataset: DatasetDict, sizes: Mapping[str, float | int], seed: int, ignore_stereo: bool
) -> dict[str, Dataset]:
    unknown = [split for split in dataset if split not in SPLITS]
    if unknown or "train" not in dataset:
        raise ValueError(
            f"The source has no official splits, only {', '.join(map(repr, dataset))}: set the "
            "split method to 'random' or 'scaffold'."
        )
    splits = dict(dataset)
    there = [split for split in sizes if split == "train" or split in splits]
    if there:
        raise ValueError(
            f"sizes={dict(sizes)}: the source has its own {', '.join(there)}. Name only splits "
            "that are missing, or set the split method to 'random' or 'scaffold'."
        )
    if sizes:
        train = splits["train"]
        assigned = random_split(_molecules(train, ignore_stereo), sizes, seed)
        splits |= {split: train.select(assigned[split]) for split in ("train", *sizes)}
    return splits
