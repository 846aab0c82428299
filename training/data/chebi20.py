# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""ChEBI-20: molecules described in words.

33,008 PubChem compounds with descriptions from ChEBI in 26,407 rows for training, 3,301 for
validation and 3,300 for testing. Edwards, Zhai and Ji, Text2Mol, EMNLP 2021; in this form Edwards
et al., MolT5, EMNLP 2022, https://github.com/blender-nlp/MolT5 (BSD-3-Clause). ChEBI is CC BY 4.0.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from .files import ROW, Paths, find_column, find_optional_column, open_tables
from .source import RawExample, Source, needed, needed_text

MOLECULE = ("SMILES", "molecule")
DESCRIPTION = ("description", "caption", "text")
IDENTITY = ("CID", "id")


def load_chebi20(
    data: Paths | Mapping[str, Paths], *, streaming: bool = False, **files: Any
) -> Source:
    """ChEBI-20 for the task molecule_captioning.

    Args:
        data: the published tab-separated files `train.txt`, `validation.txt` and `test.txt` (CID,
            SMILES, description; one of them, or their folder); JSONL, CSV or Parquet files; or a
            copy on the Hub. Columns may be called `SMILES` or `molecule`, `description`, `caption`
            or `text`, and `CID` or `id`, in any case; without the last, ids are row numbers.
        streaming: see `open_tables`.
        files: other arguments of `open_tables`.

    Raises:
        ValueError: a column is missing.
        FileNotFoundError: there is no such file.
    """
    if _is_published(data):
        data = _published_files(data)
        # Quotation marks in the descriptions belong to names such as 3''-deamino.
        files = {"file_format": "tsv", "quoting": False} | files
    splits = open_tables(data, streaming=streaming, **files)
    read = partial(
        read_caption,
        molecule=find_column(splits, MOLECULE, "molecule"),
        description=find_column(splits, DESCRIPTION, "description"),
        identity=find_optional_column(splits, IDENTITY) or ROW,
    )
    return Source("chebi20", "molecule_captioning", splits, read, molecule_format="smiles")


def read_caption(
    row: Mapping[str, Any], molecule: str, description: str, identity: str
) -> list[RawExample]:
    """The example of one row; the arguments are names of columns.

    Raises:
        RowError: a cell is empty or no text.
    """
    number = needed(row, identity)
    # A CID that went through pandas beside gaps is 123.0.
    number = int(number) if isinstance(number, float) and number.is_integer() else number
    return [
        RawExample(
            str(number),
            needed_text(row, molecule),
            needed_text(row, description),
            columns=(molecule, description),
        )
    ]


def _published_files(data: Paths | Mapping[str, Paths]) -> Paths | Mapping[str, Paths]:
    """The three files by split if `data` is their folder, otherwise `data`."""
    if not isinstance(data, str | Path):
        return data
    folder = Path(data)
    if not folder.is_dir():
        return data
    names = ("train", "validation", "test")
    paths = {name: folder / f"{name}.txt" for name in names}
    return {name: path for name, path in paths.items() if path.exists()}


def _is_published(data: Paths | Mapping[str, Paths]) -> bool:
    """Whether these are the tab-separated `.txt` files, so that their format must be said."""
    if isinstance(data, Mapping):
        return all(_is_published(paths) for paths in data.values())
    if not isinstance(data, str | Path):
        return all(_is_published(path) for path in data)
    path = Path(data)
    return (path / "test.txt").exists() or path.name.lower().endswith((".txt", ".txt.gz"))
