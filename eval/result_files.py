# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Reading what the benchmark wrote: `results.json` and the `predictions.jsonl` beside it."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.metric_names import CONTROLS, TASKS

SCHEMA = 1
POLICIES = ("strict", "published")
RESULTS = "results.json"
PREDICTIONS = "predictions.jsonl"

_NEEDED = (
    "model",
    "method",
    "base_model",
    "base_fingerprint",
    "adapter_sha256",
    "data",
    "policy",
    "decoding",
    "seeds",
    "bootstrap",
    "scores",
    "versions",
    "device",
    "command",
    "finished_at",
    "wall_time_s",
)
_NEEDED_DATA = ("name", "split", "dataset_sha256", "rows_in_split", "rows_scored")
_NEEDED_SCORE = ("task", "source", "property", "notation", "unit", "control", "n", "metrics")
_NEEDED_LINE = (
    "id",
    "source",
    "task",
    "property",
    "group",
    "control",
    "molecule",
    "prompt",
    "reference",
    "text",
    "finished",
)


class ResultFileError(ValueError):
    """A result file that cannot be reported; the message names the file and the fix."""


@dataclass(frozen=True)
class Value:
    """One score with its bootstrap interval; all None where it could not be computed."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Score:
    """The scores of one question under one control.

    Attributes:
        task: key of `TASKS`.
        source: where the rows come from, such as `qm9`.
        property: what was asked for; None for a task without properties, and for all together.
        notation: `smiles` or `selfies`.
        unit: of the values; None where they have none.
        control: None for the model as it is, or a key of `CONTROLS`.
        n: number of rows.
        tokenizer: of caption scores.
        metrics: name -> value.
    """

    task: str
    source: str
    property: str | None
    notation: str
    unit: str | None
    control: str | None
    n: int
    metrics: Mapping[str, Value]
    tokenizer: str | None = None


@dataclass(frozen=True)
class Run:
    """One `results.json` with the predictions beside it.

    Attributes:
        number: position among the runs of a report, from 1.
        path: the `results.json`.
        scores: its scores.
        settings: everything else that it says, as it stands there.
        lines: the records of `predictions.jsonl`.
    """

    number: int
    path: Path
    scores: tuple[Score, ...]
    settings: Mapping[str, Any]
    lines: tuple[Mapping[str, Any], ...] = field(repr=False)

    @property
    def model(self) -> str:
        """Folder or Hub id of the model."""
        return self.settings["model"]

    @property
    def method(self) -> str:
        """`mora`, `lora`, `graph_prefix`, `full_finetune` or `base`."""
        return self.settings["method"]

    @property
    def policy(self) -> str:
        """`strict` or `published`."""
        return self.settings["policy"]

    @property
    def data(self) -> Mapping[str, Any]:
        """Name, split and fingerprint of the data."""
        return self.settings["data"]

    def rows(
        self, task: str, source: str, control: str | None = None, property: str | None = None
    ) -> list[Mapping[str, Any]]:
        """Predictions of one question, in the order of the data.

        Args:
            task: key of `TASKS`.
            source: where the rows come from.
            control: None for the model as it is, or a key of `CONTROLS`.
            property: only this one; None for all.
        """
        return [
            line
            for line in self.lines
            if (line["task"], line["source"], line["control"]) == (task, source, control)
            and property in (None, line["property"])
        ]


def read_runs(arguments: Iterable[str | Path]) -> list[Run]:
    """Read all result files, each once.

    Args:
        arguments: `results.json` files, or folders that hold them at any depth.

    Raises:
        ResultFileError: a file is missing, broken, of another schema, or does not fit its
            predictions.
    """
    paths: dict[Path, Path] = {}
    for argument in map(Path, arguments):
        for path in _find(argument):
            paths.setdefault(path.resolve(), path)
    return [_read_run(number, path) for number, path in enumerate(paths.values(), start=1)]


def _find(argument: Path) -> list[Path]:
    if argument.is_file():
        return [argument]
    if not argument.is_dir():
        raise ResultFileError(
            f"{argument} does not exist: pass a {RESULTS} that eval.benchmark wrote, or a folder "
            "that holds one"
        )
    found = sorted(argument.rglob(RESULTS))
    if not found:
        raise ResultFileError(
            f"{argument} holds no {RESULTS}, at no depth: pass the --output_dir of eval.benchmark"
        )
    return found


def _read_run(number: int, path: Path) -> Run:
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ResultFileError(
            f"{path} cannot be read as JSON ({error}): score the model again with eval.benchmark"
        ) from error
    schema = results.get("schema") if isinstance(results, dict) else None
    if schema != SCHEMA:
        raise ResultFileError(
            f"{path} has schema {schema!r}, but this report reads schema {SCHEMA}: score the model "
            "again with this checkout's eval.benchmark"
        )
    _need(results, _NEEDED, path, "")
    if results["policy"] not in POLICIES:
        raise ResultFileError(
            f"{path}: policy is {results['policy']!r}, which this report does not know; it knows "
            f"{', '.join(POLICIES)}"
        )
    _need(results["data"], _NEEDED_DATA, path, "data.")
    scores = tuple(_read_score(entry, path, i) for i, entry in enumerate(results.pop("scores")))
    if not scores:
        raise ResultFileError(f"{path} holds no scores: score the model again")
    lines = _read_lines(path.with_name(PREDICTIONS))
    _compare(path, scores, lines)
    return Run(number, path, scores, results, lines)


def _need(entry: Mapping, keys: Iterable[str], path: Path, where: str) -> None:
    missing = [where + key for key in keys if key not in entry]
    if missing:
        raise ResultFileError(
            f"{path} lacks {', '.join(missing)}: score the model again with this checkout's "
            "eval.benchmark"
        )


def _read_score(entry: Mapping, path: Path, position: int) -> Score:
    where = f"scores[{position}]."
    _need(entry, _NEEDED_SCORE, path, where)
    for key, known in (("task", TASKS), ("control", (None, *CONTROLS))):
        if entry[key] not in known:
            raise ResultFileError(
                f"{path}: {where}{key} is {entry[key]!r}, which this report does not know; it "
                f"knows {', '.join(str(name) for name in known)}"
            )
    metrics = {
        name: Value(value["value"], value.get("low"), value.get("high"))
        for name, value in entry["metrics"].items()
    }
    values = {key: entry[key] for key in _NEEDED_SCORE if key != "metrics"}
    return Score(**values, metrics=metrics, tokenizer=entry.get("tokenizer"))


def _read_lines(path: Path) -> tuple[Mapping[str, Any], ...]:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ResultFileError(
            f"{path} is missing, which holds the answers: keep it beside {RESULTS}, pass the "
            "folder that eval.benchmark wrote and no copy of its results, or score the model again"
        ) from error
    # Only "\n" ends a line here: str.splitlines would also break at characters that a model may
    # write inside an answer.
    lines = content.split(b"\n")
    if lines[-1]:
        raise ResultFileError(
            f"{path} ends in the middle of a line: the benchmark was stopped; run it again, it "
            "goes on where it stopped"
        )
    records = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            record = json.loads(line)
            missing = [key for key in _NEEDED_LINE if key not in record]
        except (ValueError, TypeError) as error:
            raise ResultFileError(f"{path}, line {number} is no JSON object ({error})") from error
        if missing:
            raise ResultFileError(
                f"{path}, line {number} lacks {', '.join(missing)}: score the model again with "
                "this checkout's eval.benchmark"
            )
        records.append(record)
    return tuple(records)


def _compare(path: Path, scores: Iterable[Score], lines: Iterable[Mapping[str, Any]]) -> None:
    """Refuse predictions that are not those of the scores.

    Predictions of a control that is not scored are left alone: they stay from an earlier run in
    the same folder, which asked for more.
    """
    predictions = path.with_name(PREDICTIONS)
    keys = [tuple(line[key] for key in ("task", "source", "property", "control")) for line in lines]
    counts = Counter(keys) + Counter((t, s, None, c) for t, s, p, c in keys if p is not None)
    for score in scores:
        if score.control == "training_mean":
            continue
        found = counts[score.task, score.source, score.property, score.control]
        if found != score.n:
            asked = ", ".join(
                str(part)
                for part in (score.task, score.source, score.property, score.control)
                if part is not None
            )
            raise ResultFileError(
                f"{predictions} holds {found} predictions for {asked}, but {path.name} counts "
                f"{score.n}: the two are not of the same run; score the model again into an empty "
                "folder"
            )
    rows = Counter((line["id"], *key) for line, key in zip(lines, keys, strict=True))
    twice = next((row for row, count in rows.items() if count > 1), None)
    if twice:
        raise ResultFileError(
            f"{predictions} holds row {twice[0]!r} more than once: score the model again into an "
            "empty folder"
        )
