# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Lists of molecules to pretrain on: files, data sets of the Hub, and three that wheels carry."""

import importlib.util
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from pathlib import Path

import numpy as np
import yaml
from datasets import Dataset, Features, Value, concatenate_datasets
from rdkit import RDConfig

from modeling_mora.molecule_list_mora import HEADERS, read_lines
from training.arguments import DataArguments
from training.data.files import (
    check_columns,
    column_names,
    find_optional_column,
    open_tables,
)
from training.data.prepared import load_prepared
from training.data.qm9 import load_qm9, read_qm9
from training.recipe_files import read_recipe

FEATURES = Features(
    {
        "molecule": Value("string"),
        "name": Value("string"),
        "row": Value("int64"),
        "split": Value("string"),
        "source": Value("string"),
    }
)
SMILES_FILES = (".smi", ".smiles", ".txt")


def open_molecules(source: str, column: str | None = None) -> Dataset:
    """Open one list of molecules, without looking at the molecules.

    Args:
        source: `"qm9"`, `"moses"` (its training set) or `"nci"`; a SMILES file (.smi, .smiles,
            .txt: one molecule a line, behind it an optional name); or what `open_tables` opens: a
            CSV, TSV, JSON Lines or Parquet file, a folder of them, a data set on the Hub. Of one
            with splits the training split is taken, if it has one.
        column: where the molecules stand in a table; by default a column that is called `smiles`,
            `selfies`, `inchi` or the like.

    Returns:
        Columns `molecule` (text, or None for an empty cell), `name` (what stands behind it in a
        SMILES file), `row` (line in a SMILES file, otherwise position in its split, from 1),
        `split` and `source`.

    Raises:
        FileNotFoundError: no such file or data set, or its package is not installed.
        ValueError: the file cannot be read, or has no such column.
    """
    if source in NAMED:
        return _listed(NAMED[source](), source)
    if Path(source).suffix.lower() in SMILES_FILES:
        if not Path(source).is_file():
            raise FileNotFoundError(f"{source} does not exist: name a file, or {_names()}.")
        rows, names, molecules = zip(*read_lines(source), strict=True)
        return _listed(molecules, source, names, rows)
    if "/" not in source and not Path(source).exists():
        raise FileNotFoundError(f"{source!r} is neither a file or folder here nor {_names()}.")
    tables = open_tables(source)
    if "train" in tables:
        tables = {"train": tables["train"]}
    if column is not None:
        check_columns(tables, [column])
    found = column or find_optional_column(tables, HEADERS)
    if found is None:
        names = ", ".join(map(repr, column_names(next(iter(tables.values())))))
        raise ValueError(
            f"{source}: which column holds the molecules? Say it with --molecule_column; there "
            f"are {names}."
        )
    return concatenate_datasets(
        [_listed(table[found], source, split=split) for split, table in tables.items()]
    )


def draw_rows(rows: Dataset, count: int | None, seed: int) -> Dataset:
    """`count` rows at random, in their order; all of them for None or where there are fewer."""
    if count is None or count >= len(rows):
        return rows
    # Not with `random`, whose sample would be the end of the order that load_qm9 takes its own
    # molecules from the beginning of.
    drawn = np.random.default_rng(seed).choice(len(rows), count, replace=False)
    return rows.select(np.sort(drawn))


def held_out_molecules(path: str) -> set[str]:
    """Canonical SMILES of the validation and test molecules that a fine-tuning will be judged on.

    Args:
        path: a folder of prepared data, or a recipe of `training.finetune`, which names one or
            takes a part of QM9.

    Raises:
        ValueError: it is neither.
        OSError: the file cannot be read.
    """
    if not Path(path).exists():
        raise FileNotFoundError(
            f"exclude={path!r} does not exist: name a folder that training.prepare wrote or a "
            "recipe of training.finetune."
        )
    is_recipe = Path(path).is_file()
    splits = _splits_of_recipe(Path(path)) if is_recipe else load_prepared(path).splits
    held_out = [splits[name]["molecule"][:] for name in ("validation", "test") if name in splits]
    return {molecule for column in held_out for molecule in column if molecule is not None}


def _splits_of_recipe(path: Path) -> dict[str, Dataset]:
    try:
        recipe = read_recipe(path)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"exclude={str(path)!r} is no recipe: {error}") from error
    if "prepared" in recipe:
        return load_prepared(recipe["prepared"]).splits
    if "train_molecules" not in recipe:
        raise ValueError(
            f"exclude={str(path)!r} says neither `prepared` nor `train_molecules`: name a folder "
            "that training.prepare wrote or a recipe of training.finetune."
        )
    keys = DataArguments.qm9_keys()
    settings = DataArguments(**{key: recipe[key] for key in keys if key in recipe}).qm9_settings()
    return load_qm9(**settings | {"train": 0})


def _listed(
    molecules: Iterable[str | None],
    source: str,
    names: Iterable[str] | None = None,
    rows: Iterable[int] | None = None,
    split: str = "all",
) -> Dataset:
    molecules = list(molecules)
    count = len(molecules)
    columns = {
        "molecule": molecules,
        "name": list(names or repeat("", count)),
        "row": list(rows or range(1, count + 1)),
        "split": [split] * count,
        "source": [source] * count,
    }
    return Dataset.from_dict(columns, features=FEATURES)


def _read_nci() -> list[str]:
    path = Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi"
    return [molecule for _, _, molecule in read_lines(path)]


def _read_moses() -> Sequence[str]:
    """The training set of MOSES (Polykarpovskiy et al., Front. Pharmacol. 2020)."""
    spec = importlib.util.find_spec("moses")
    for folder in (spec.submodule_search_locations if spec is not None else None) or []:
        path = Path(folder) / "dataset" / "data" / "train.csv.gz"
        if path.is_file():
            return open_tables(str(path))["train"]["SMILES"][:]
    raise FileNotFoundError(
        "MOSES is read from the PyPI package molsets, which is not installed here. Install it "
        "with `pip install --no-deps molsets==0.3.1`."
    )


NAMED: dict[str, Callable[[], Sequence[str]]] = {
    "qm9": lambda: read_qm9()["SMILES"].to_list(),
    "moses": _read_moses,
    "nci": _read_nci,
}


def _names() -> str:
    return f"one of {', '.join(NAMED)}"
