# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Sources from data sets on a Hub, in fresh processes with an empty cache."""

import io
import json
import zipfile
from pathlib import Path

import pytest
from conftest import hub_environment, run
from datasets import Dataset
from hub_server import Blob, HubServer, Repository

HUB_FILE = "data/Molecule-oriented_Instructions.zip"
PREAMBLE = """
import sys
from training.data.chebi20 import load_chebi20
from training.data.mol_instructions import load_mol_instructions
from training.data.table import load_table
"""


def add_parquet(hub: HubServer, name: str) -> None:
    """A data set laid out as `push_to_hub` does, with one row in each split."""
    files = {}
    for split in ("train", "validation", "test"):
        content = io.BytesIO()
        row = {"CID": 702, "SMILES": "CCO", "description": f"An alcohol, {split}."}
        Dataset.from_list([row]).to_parquet(content)
        files[f"data/{split}-00000-of-00001.parquet"] = Blob(content.getvalue(), lfs=True)
    hub.repositories[f"datasets/{name}"] = Repository()
    hub.repositories[f"datasets/{name}"].add_commit("main", files)


@pytest.mark.parametrize("streaming", [False, True])
def test_chebi20_in_parquet(hub: HubServer, tmp_path: Path, streaming: bool):
    add_parquet(hub, "lab/chebi")
    script = """
source = load_chebi20("lab/chebi", streaming=sys.argv[1] == "True")
assert list(source.splits) == ["train", "validation", "test"]
[row] = source.splits["test"]
[example] = source.read(row)
assert (example.id, example.molecule) == ("702", "CCO"), example
assert example.answer == "An alcohol, test.", example
"""
    run(PREAMBLE + script, streaming, cwd=tmp_path, **hub_environment(hub, tmp_path))


def test_a_table_and_errors(hub: HubServer, tmp_path: Path):
    add_parquet(hub, "lab/table")
    script = """
settings = {"task": "molecule_captioning", "molecule": "SMILES", "answer": "description"}
source = load_table("lab/table", **settings)
[example] = source.read(source.splits["validation"][0])
assert example.id == "validation-0", example
for data, change, message in [
    ("lab/table", {"id": "cid"}, "did you mean 'CID'?"),
    ("lab/nothing", {}, "nor a data set that the Hub lets you read"),
]:
    try:
        load_table(data, **settings | change)
    except (ValueError, FileNotFoundError) as error:
        assert message in str(error), error
    else:
        raise AssertionError(message)
"""
    run(PREAMBLE + script, cwd=tmp_path, **hub_environment(hub, tmp_path))


def test_mol_instructions_is_downloaded_and_unpacked(hub: HubServer, tmp_path: Path):
    content = io.BytesIO()
    row = {"instruction": "HOMO?", "input": "[C][C][O]", "output": "-0.2653"}
    rows = [row | {"metadata": {"task": "property prediction", "split": "test"}}]
    with zipfile.ZipFile(content, "w") as archive:
        name = "Molecule-oriented_Instructions/property_prediction.json"
        archive.writestr(name, json.dumps(rows))
    repository = Repository()
    repository.add_commit("main", {HUB_FILE: Blob(content.getvalue(), lfs=True)})
    hub.repositories["datasets/zjunlp/Mol-Instructions"] = repository
    script = """
source = load_mol_instructions("property_prediction")
[example] = source.read(source.splits["test"][0])
assert (example.molecule, example.answer) == ("CCO", -0.2653), example
assert example.options == {"property": "homo"}, example
"""
    run(PREAMBLE + script, cwd=tmp_path, **hub_environment(hub, tmp_path))
