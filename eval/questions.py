# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""What a model is asked: the rows of a split, and the same rows under the controls."""

import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import DatasetDict
from transformers import ProcessorMixin
from transformers.utils import cached_file

from eval.generation import answer_budget
from modeling_mora.tasks_mora import Task, get_task
from training.data.prepared import Prepared, load_prepared
from training.data.qm9 import load_qm9, qm9_properties

# What is asked besides the model itself, which is None in the records.
CONTROLS = {
    "no_molecule": "the same model without the molecule's graph; its string stays in the question",
    "shuffled_molecule": "the same model with the graph of another of the molecules asked about",
    "no_string": "the same model with the graph, without the molecule's string in the question",
    "base_model": "the base LLM alone",
}


@dataclass(frozen=True)
class BenchmarkData:
    """Rows to score, and what belongs to them.

    Attributes:
        name: `qm9`, or the folder of prepared data.
        splits: those of the data; the one that is asked and, if there is one, `train`.
        tasks: settings by task name, as in `MoraProcessor`.
        split_seed: seed of the split, where it is known.
    """

    name: str
    splits: DatasetDict
    tasks: dict[str, dict[str, Any]]
    split_seed: int | None

    def task(self, name: str) -> Task:
        """The task with the settings of this data."""
        return get_task(name, **self.tasks.get(name, {}))


def load_data_of(model: str) -> BenchmarkData:
    """The data that a model was trained on, from the `data.json` that training wrote beside it.

    Raises:
        OSError: the checkpoint holds no `data.json`.
        ValueError: the prepared data is not there any more, or is not what it was.
    """
    try:
        path = cached_file(model, "data.json")
    except OSError as error:
        raise OSError(
            f"{model!r} holds no data.json, which says what molecules the model has not seen: "
            f"score a folder written by training.finetune, or give --data ({error})"
        ) from error
    settings = json.loads(Path(path).read_text(encoding="utf-8"))
    if "prepared" not in settings:
        tasks = {"property_prediction": {"properties": qm9_properties(settings["properties"])}}
        return BenchmarkData("qm9", load_qm9(**settings), tasks, settings.get("seed"))
    data = load_prepared(settings["prepared"])
    if data.info["fingerprints"] != settings["fingerprints"]:
        raise ValueError(
            f"{settings['prepared']!r} is not the data that {model!r} was trained on: what was "
            "held out then may be in training now. Prepare it again as it was, or give --data "
            "for data of which you know that the model has not seen it."
        )
    return from_prepared(data)


def from_prepared(data: Prepared) -> BenchmarkData:
    """Data prepared by `training.prepare`."""
    return BenchmarkData(
        str(data.path), data.splits, data.tasks, data.info["settings"]["split"].get("seed")
    )


def select_rows(
    data: BenchmarkData, split: str, tasks: Sequence[str] | None, max_examples: int | None
) -> list[dict]:
    """The rows to ask, each with its number in the split as `row`.

    Args:
        data: where they come from.
        split: such as `"test"`.
        tasks: only these; None for all.
        max_examples: only so many, evenly spread, as a split may lie source by source or sorted.

    Raises:
        ValueError: there is no such split or task, or no row.
    """
    if split not in data.splits:
        raise ValueError(f"{data.name} has no split {split!r}: use one of {', '.join(data.splits)}")
    rows = data.splits[split].to_list()
    known = dict.fromkeys(row["task"] for row in rows)
    for task in tasks or ():
        if task not in known:
            raise ValueError(
                f"{data.name} asks no {task!r} in split {split!r}: it asks {', '.join(known)}"
            )
    rows = [
        {"row": number, **row}
        for number, row in enumerate(rows)
        if tasks is None or row["task"] in tasks
    ]
    if max_examples is not None and max_examples < len(rows):
        rows = [rows[i * len(rows) // max_examples] for i in range(max_examples)]
    if not rows:
        raise ValueError(f"the split {split!r} of {data.name} is empty: nothing to score")
    return rows


def make_questions(
    rows: Sequence[Mapping], control: str | None, seed: int, task_of: Callable[[str], Task]
) -> list[dict]:
    """The records of `predictions.jsonl` before they are answered.

    Args:
        rows: from `select_rows`.
        control: key of `CONTROLS`, or None for the model as it is.
        seed: of the shuffled molecules.
        task_of: from a task's name to the task with the settings of the data.

    Raises:
        ValueError: molecules are to be shuffled, but there is only one; or a string is to be left
            out of a question that does not hold it.
    """
    graphs: Mapping[str, str | None]
    if control in ("no_molecule", "base_model"):
        graphs = {row["molecule"]: None for row in rows}
    elif control == "shuffled_molecule":
        graphs = shuffle_molecules([row["molecule"] for row in rows], seed)
    else:
        graphs = {row["molecule"]: row["molecule"] for row in rows}

    def prompt(row: Mapping) -> str:
        if control != "no_string":
            return row["prompt"]
        return task_of(row["task"]).hide_molecule(row["prompt"], row["molecule"], row["row"])

    return [
        {
            "row": row["row"],
            **{key: row[key] for key in ("id", "source", "task", "property", "group")},
            "control": control,
            "molecule": row["molecule"],
            "graph": graphs[row["molecule"]],
            "prompt": prompt(row),
            "reference": row["answer"],
        }
        for row in rows
    ]


def shuffle_molecules(molecules: Sequence[str], seed: int) -> dict[str, str]:
    """Give each molecule another one, and every one away once.

    Raises:
        ValueError: there is only one.
    """
    distinct = list(dict.fromkeys(molecules))
    if len(distinct) < 2:
        raise ValueError("shuffled_molecule needs at least two different molecules: ask more rows")
    random.Random(seed).shuffle(distinct)
    return dict(zip(distinct, distinct[1:] + distinct[:1], strict=True))


def answer_budgets(
    data: BenchmarkData, rows: Sequence[Mapping], processor: ProcessorMixin, given: int | None
) -> dict[str, int]:
    """`max_new_tokens` by task: the longest training answer and a margin, unless it is given.

    Raises:
        ValueError: there are no training answers of a task.
    """
    names = dict.fromkeys(row["task"] for row in rows)
    if given is not None:
        return dict.fromkeys(names, given)
    answers: dict[str, set[str]] = {name: set() for name in names}
    for row in data.splits.get("train", ()):
        if row["task"] in answers:
            answers[row["task"]].add(row["answer"])
    for name, known in answers.items():
        if not known:
            raise ValueError(
                f"{data.name} holds no training answers for {name!r}, which would say how long an "
                "answer may get: give --max_new_tokens"
            )
    return {name: answer_budget(processor, list(known)) for name, known in answers.items()}


def fingerprint(rows: Sequence[Mapping]) -> str:
    """SHA-256 over ids, molecules, questions and answers, in order."""
    digest = hashlib.sha256()
    for row in rows:
        line = json.dumps([row[key] for key in ("row", "id", "molecule", "prompt", "answer")])
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()
