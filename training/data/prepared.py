# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Prepared data as a folder: the examples, what a processor has to know, and where all came from.

The folder is that of `DatasetDict.save_to_disk` with `prepared.json` beside the splits.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, load_from_disk

from modeling_mora.tasks_mora import get_task, task_settings
from training.data.build import COLUMNS
from training.data.source import Source

FILE = "prepared.json"
PACKAGES = ("datasets", "modeling-mora", "rdkit", "selfies", "transformers")


@dataclass(frozen=True)
class Prepared:
    """A folder of prepared data.

    Attributes:
        path: the folder.
        splits: `train` and, where there are any, `validation` and `test`.
        tasks: settings by task name, for `MoraProcessor(tasks=…)`.
        info: all of `prepared.json`.
    """

    path: Path
    splits: DatasetDict
    tasks: dict[str, dict[str, Any]]
    info: dict[str, Any]


def load_prepared(path: Path | str) -> Prepared:
    """Open a folder that `training.prepare` wrote.

    Raises:
        ValueError: it is no such folder, or its examples are not those that were written.
    """
    info = read_info(path)
    splits = load_from_disk(str(path))
    for split, dataset in splits.items():
        if dataset_fingerprint(dataset) != info["fingerprints"].get(split):
            raise ValueError(
                f"The split {split!r} in {str(path)!r} is not what its {FILE} describes: run "
                "training.prepare again."
            )
    return Prepared(Path(path), splits, info["tasks"], info)


def read_info(path: Path | str) -> dict[str, Any]:
    """Read `prepared.json` alone.

    Raises:
        ValueError: the folder holds none.
    """
    try:
        return json.loads((Path(path) / FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(
            f"{str(path)!r} is no folder of prepared data, for it holds no {FILE}. Make one with "
            f"`python -m training.prepare RECIPE.yaml --output_dir {path}`."
        ) from None


def write_info(folder: Path, info: Mapping[str, Any]) -> None:
    """Write `prepared.json` with the versions of the packages that took part."""
    versions = {package: version(package) for package in PACKAGES}
    text = json.dumps({**info, "versions": versions}, indent=2, ensure_ascii=False) + "\n"
    (folder / FILE).write_text(text, encoding="utf-8")


def merge_tasks(sources: Iterable[Source]) -> dict[str, dict[str, Any]]:
    """The settings of each task that sources ask, as plain values for JSON.

    Sources of one task may each have their own properties or labels.

    Raises:
        ValueError: two sources set the same thing differently.
    """
    tasks: dict[str, dict[str, Any]] = {}
    for source in sources:
        settings = {key: _plain(value) for key, value in source.task_settings.items()}
        task = get_task(source.task, **settings)
        # Without what equals its default, but for properties and labels, which are joined.
        named = {key: value for key, value in asdict(task).items() if isinstance(value, dict)}
        settings = json.loads(json.dumps({**task_settings(task), **named}))
        known = tasks.setdefault(source.task, settings)
        for key in known.keys() | settings.keys():
            both = known.get(key), settings.get(key)
            if all(isinstance(value, dict) for value in both):
                for name in both[0].keys() & both[1].keys():
                    if both[0][name] != both[1][name]:
                        raise ValueError(
                            f"Task {source.task!r}: {key} {name!r} is {both[0][name]} in one "
                            f"source and {both[1][name]} in {source.name!r}. Give one of them "
                            "another name."
                        )
                known[key] = {**both[0], **both[1]}
            elif both[0] != both[1]:
                raise ValueError(
                    f"Task {source.task!r}: {key} is {both[0]!r} in one source and {both[1]!r} in "
                    f"{source.name!r} (none means the default). Set it alike in all of them."
                )
    return tasks


def dataset_fingerprint(dataset: Dataset) -> str:
    """SHA-256 over all columns of all examples, in order."""
    digest = hashlib.sha256()
    columns = dataset.select_columns(list(COLUMNS))
    for batch in columns.with_format("arrow").iter(batch_size=10_000):
        digest.update(json.dumps(batch.to_pydict()).encode())
    return digest.hexdigest()


def check_output(output_dir: Path, overwrite: bool) -> None:
    """Refuse to write over anything but, if told so, an earlier result.

    Raises:
        ValueError: names the folder and what to do.
    """
    if not output_dir.exists():
        return
    if output_dir.is_dir() and not any(output_dir.iterdir()):
        return
    if not (output_dir / FILE).is_file():
        raise ValueError(
            f"output_dir={str(output_dir)!r} holds something that is no prepared data: choose "
            "another one."
        )
    if not overwrite:
        raise ValueError(
            f"output_dir={str(output_dir)!r} holds prepared data. Choose another one, or add "
            "--overwrite to replace it."
        )


@contextmanager
def written_in_one_step(output_dir: Path):
    """A new folder beside `output_dir` that takes its place if the block ends without an error."""
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output_dir.with_name(f".{output_dir.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        yield unfinished
        if (output_dir / FILE).is_file():
            old = output_dir.with_name(f".{output_dir.name}.{os.getpid()}.old")
            os.replace(output_dir, old)
            os.replace(unfinished, output_dir)
            shutil.rmtree(old)
        else:
            # Replaces an empty folder, and fails for any other.
            os.replace(unfinished, output_dir)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return asdict(value)
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return value
