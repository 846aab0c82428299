# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Mol-Instructions: the molecule-oriented instructions as MoRA's tasks.

Fang et al., Mol-Instructions, ICLR 2024, https://huggingface.co/datasets/zjunlp/Mol-Instructions
(CC BY 4.0). Reactions are from USPTO, orbital energies in hartree from QM9, descriptions from
PubChem. Our tasks word the instructions anew, and keep only the property that is asked for.
"""

import ast
import logging
import os
import re
import shutil
import warnings
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import selfies
from datasets import load_dataset
from huggingface_hub import hf_hub_download

from .files import ROW, Table, check_columns, column_names, number_rows, split_name
from .source import RawExample, RowError, Source, needed_text, number

logger = logging.getLogger(__name__)

HUB_ID = "zjunlp/Mol-Instructions"
HUB_FILE = "data/Molecule-oriented_Instructions.zip"
# Our name of each task: its file, and what `metadata.task` calls it.
TASKS = {
    "forward_reaction_prediction": ("forward_reaction_prediction", "forward reaction prediction"),
    "retrosynthesis": ("retrosynthesis", "retrosynthesis"),
    "reagent_prediction": ("reagent_prediction", "reagent prediction"),
    "property_prediction": ("property_prediction", "property prediction"),
    "molecule_captioning": (
        "molecular_description_generation",
        "molecular description generation",
    ),
}
SPLITS = ("train", "validation", "test")
COLUMNS = ("input", "output")


def load_mol_instructions(
    task: str,
    data: str | Path | None = None,
    *,
    revision: str | None = None,
    streaming: bool = False,
) -> Source:
    """Molecule-oriented instructions of one task.

    Molecules are written as SELFIES, which become SMILES; those of version 1, with tokens such as
    `[C@@Hexpl]` or `[Branch1_1]`, are read by `selfies.decoder(compatible=True)`. Molecules beyond
    the valences of SELFIES, such as hypervalent iodine, are errors: the decoder would silently
    give others. In forward reaction prediction reactants and reagents are one list and stay one.
    Orbital energies are in hartree; HOMO, LUMO or gap is recognised from the instruction.

    Splits are those that `metadata.split` names (in any case, `valid` for validation). Rows where
    it names none are an error in a file where others do, as they might belong to the test set; if
    no row names one, all are the split `all`. There are no ids: they are row numbers of the file.

    Args:
        task: a key of `TASKS`. Description-guided molecule design is not supported: its input is
            text, so there is no molecule to make a graph from.
        data: the published zip, its unpacked folder, or one of its files as JSON or JSON Lines;
            without it, the zip is downloaded from the Hub.
        revision: branch, tag or commit on the Hub.
        streaming: read rows when they are asked for.

    Raises:
        ValueError: an unknown or unsupported task, or a file with other columns.
        FileNotFoundError: the file is not there.
    """
    if task in ("description_guided_molecule_design", "molecule_design"):
        raise ValueError(
            f"Task {task!r} of Mol-Instructions is not supported: its input is a description, so "
            "there is no molecule to make a graph from."
        )
    if task not in TASKS:
        raise ValueError(f"Task {task!r} is unknown: use one of {', '.join(TASKS)}.")
    if data is None:
        data = hf_hub_download(HUB_ID, HUB_FILE, repo_type="dataset", revision=revision)
    file = find_json(Path(data), TASKS[task][0])
    rows = load_dataset(
        "json", data_files=[str(file.resolve())], split="train", streaming=streaming
    )
    check_columns({"all": rows}, ("instruction", "input", "output"))
    rows = number_rows(rows, TASKS[task][0])
    splits = split_rows(rows, TASKS[task][1])
    logger.info(
        "Mol-Instructions, %s: SELFIES are converted to SMILES, old tokens such as [C@@Hexpl] too.",
        task,
    )
    read = partial(read_instruction, task=task, has_splits="all" not in splits)
    return Source("mol_instructions", task, splits, read, molecule_format="smiles")


def find_json(path: Path, name: str) -> Path:
    """The file of a task in a zip, a folder or by itself; from a zip it is unpacked to the cache.

    Raises:
        FileNotFoundError: it is not there.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist: name the zip, folder or JSON file of Mol-Instructions, or "
            f"leave it out to download it from the Hub ({HUB_ID})."
        )
    wanted = (f"{name}.json", f"{name}.jsonl")
    if path.is_dir():
        for found in sorted(path.rglob("*.json*")):
            if found.name in wanted:
                return found
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                hidden = member.filename.startswith("__MACOSX")
                if Path(member.filename).name in wanted and not hidden:
                    return _unpack(archive, member)
    else:
        return path
    raise FileNotFoundError(f"{path} holds no {wanted[0]}: is it the one for molecules?")


def split_rows(rows: Table, task: str) -> dict[str, Table]:
    """The rows of a task (as `metadata.task` calls it) by split; see `load_mol_instructions`."""
    if "metadata" not in column_names(rows):
        return {"all": rows}
    seen = {split_of(row) for row in rows.select_columns("metadata") if is_of_task(row, task)}
    rows = rows.filter(partial(is_of_task, task=task))
    known = [split for split in SPLITS if split in seen]
    if not known:
        return {"all": rows}
    # Rows without a split go first, where `read_instruction` makes them errors.
    return {
        split: rows.filter(partial(is_in_split, splits=(split, None) if i == 0 else (split,)))
        for i, split in enumerate(known)
    }


def is_of_task(row: Mapping[str, Any], task: str) -> bool:
    """Whether a row belongs to a task; one that does not say is taken for one of its file's."""
    said = metadata(row).get("task")
    return not said or said.strip().lower().replace("_", " ") == task


def is_in_split(row: Mapping[str, Any], splits: tuple[str | None, ...]) -> bool:
    """Whether `metadata.split` says one of the splits; None stands for all it should not say."""
    return split_of(row) in splits


def split_of(row: Mapping[str, Any]) -> str | None:
    """The split that `metadata.split` names, or None."""
    said = metadata(row).get("split")
    return split_name(said) if said else None


def metadata(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """`metadata` of a row, which the Hub's converted copies hold as the text of a dict."""
    found = row.get("metadata") or {}
    return ast.literal_eval(found) if isinstance(found, str) else found


def read_instruction(row: Mapping[str, Any], task: str, has_splits: bool) -> list[RawExample]:
    """The example of one row.

    Args:
        row: with `instruction`, `input`, `output` and `metadata`.
        task: a key of `TASKS`.
        has_splits: whether rows of its file name their split.

    Raises:
        RowError: the row cannot be read.
    """
    if has_splits and split_of(row) is None:
        said = metadata(row).get("split")
        raise RowError("metadata.split", said, "names no split, unlike in other rows of the file")
    question, answer = needed_text(row, "input"), needed_text(row, "output")
    options = {}
    if task == "reagent_prediction":
        sides = question.split(">>")
        if len(sides) != 2:
            raise RowError("input", question, "is no reaction: write it as reactants>>product")
        molecule = ">>".join(to_smiles(side, "input") for side in sides)
    else:
        molecule = to_smiles(question, "input")
    if task == "property_prediction":
        options["property"] = property_of(needed_text(row, "instruction"))
        answer = number(answer, "output")
    elif task != "molecule_captioning":
        answer = to_smiles(answer, "output")
    return [RawExample(row[ROW], molecule, answer, options, COLUMNS)]


def property_of(instruction: str) -> str:
    """Which property an instruction asks for: `homo`, `lumo` or `gap`.

    Raises:
        RowError: none of these.
    """
    # Some copies have no-break spaces between the words.
    text = " ".join(instruction.lower().split())
    homo = re.search(r"\bhomo\b|highest occupied", text) is not None
    lumo = re.search(r"\blumo\b|lowest unoccupied", text) is not None
    if homo and lumo:
        return "gap"
    if homo or lumo:
        return "homo" if homo else "lumo"
    raise RowError("instruction", instruction, "names none of HOMO, LUMO and HOMO-LUMO gap")


def to_smiles(text: str, column: str) -> str:
    """SELFIES, of the current form or version 1, as SMILES.

    Raises:
        RowError: it is no SELFIES, one of no atoms, or one that stands for another molecule than
            it was made from.
    """
    # The decoder skips what is not in brackets.
    if not re.fullmatch(r"\[[^\[\]]+\](\.?\[[^\[\]]+\])*", text.strip()):
        raise RowError(column, text, "is no SELFIES: it is not made of [tokens]")
    try:
        smiles, spelled_again = _decode(text.strip())
    except (selfies.DecoderError, selfies.EncoderError) as error:
        raise RowError(column, text, f"is no SELFIES: {str(error).splitlines()[0]}") from error
    if not smiles:
        raise RowError(column, text, "is a SELFIES of no atoms")
    if spelled_again != text.strip():
        raise RowError(
            column, text, f"the valences of SELFIES leave {smiles}, which is not what was encoded"
        )
    return smiles


def _decode(text: str) -> tuple[str, str]:
    """SMILES, and the SELFIES it has: another than `text` if decoding has changed the molecule.

    Decoding drops what goes beyond SELFIES' valences, such as the acetates of Dess-Martin
    periodinane. In the form of version 1 that cannot be seen.
    """
    try:
        smiles = selfies.decoder(text)
    except selfies.DecoderError:
        with warnings.catch_warnings():
            # It warns at every call that old forms may be read differently; that is intended here.
            warnings.simplefilter("ignore", UserWarning)
            return selfies.decoder(text, compatible=True), text
    return smiles, selfies.encoder(smiles, strict=False) if smiles else ""


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Path:
    """Unpack a file to the cache of `datasets`, once for each content."""
    folder = Path(datasets.config.EXTRACTED_DATASETS_PATH) / f"mol_instructions-{member.CRC:08x}"
    target = folder / Path(member.filename).name
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        # Under its name it appears only when it is complete.
        partial_file = target.with_name(f"{target.name}.{os.getpid()}")
        with archive.open(member) as packed, partial_file.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
        partial_file.replace(target)
    return target
