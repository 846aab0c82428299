# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Reading `published_results.yaml`, the numbers of the field, and checking each of its entries."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from eval.metric_names import METRICS, TASKS
from eval.result_files import POLICIES

PUBLISHED_RESULTS = Path(__file__).with_name("published_results.yaml")

_PAPER = {"name": str, "citation": str, "arxiv": str, "code": str}
_ENTRY = {
    "model": str,
    "paper": str,
    "base": str,
    "task": str,
    "data": dict,
    "policy": str,
    "table": str,
    "seen": str,
    "verified": bool,
    "metrics": dict,
}
_OPTIONAL = {"property": str, "mean_over": list, "unit": str, "note": str}
_DATA = {"source": str, "split": str}


class PublishedResultsError(ValueError):
    """An entry that cannot be used; the message names the file, the entry and the fix."""


@dataclass(frozen=True)
class Paper:
    """Where numbers were published.

    Attributes:
        name: what the method is called.
        citation: authors, title, venue.
        arxiv: number there.
        code: the authors' repository or site.
    """

    name: str
    citation: str
    arxiv: str
    code: str

    @property
    def url(self) -> str:
        """Its page on arXiv."""
        return f"https://arxiv.org/abs/{self.arxiv}"


@dataclass(frozen=True)
class Entry:
    """One row of a published table.

    Attributes:
        model: what the row is called here.
        paper: where the number was published.
        base: the language model underneath.
        task: key of `eval.metric_names.TASKS`.
        source: name of the data as our own results call it, such as `chebi20`.
        split: of the data.
        n: rows of the test set; None where the paper was not seen to say.
        policy: `strict` or `published`.
        table: table of the paper.
        seen: where the number was read.
        verified: whether it was read at its source.
        metrics: name -> value; empty where no value could be seen, and then `note` says so.
        property: property or label; None for none, and for a mean over several.
        mean_over: the properties that the number is a mean of.
        unit: of the values.
        note: what else a reader must know.
    """

    model: str
    paper: Paper
    base: str
    task: str
    source: str
    split: str
    n: int | None
    policy: str
    table: str
    seen: str
    verified: bool
    metrics: Mapping[str, float]
    property: str | None = None
    mean_over: tuple[str, ...] = ()
    unit: str | None = None
    note: str | None = None


def read_published(path: str | Path = PUBLISHED_RESULTS) -> list[Entry]:
    """Read and check all entries.

    Raises:
        PublishedResultsError: a key is missing, unknown or of the wrong type, a score is unknown
            or out of its range, or an entry has neither values nor a note.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise PublishedResultsError(f"{path} is no YAML: {error}") from error
    _check(content, {"papers": dict, "entries": list}, {}, str(path))
    papers = {}
    for key, paper in content["papers"].items():
        where = f"{path}, papers.{key}"
        _check(paper, _PAPER, {}, where)
        if not re.fullmatch(r"\d{4}\.\d{5}", paper["arxiv"]):
            raise PublishedResultsError(
                f"{where}: arxiv {paper['arxiv']!r} is no number such as 2510.12245"
            )
        papers[key] = Paper(**{name: text.strip() for name, text in paper.items()})
    return [
        _read_entry(entry, papers, f"{path}, entry {number}")
        for number, entry in enumerate(content["entries"], start=1)
    ]


def _read_entry(entry: Any, papers: Mapping[str, Paper], where: str) -> Entry:
    _check(entry, _ENTRY, _OPTIONAL, where)
    where = f"{where} ({entry['model']}, {entry['task']})"
    _check(entry["data"], _DATA, {"n": int}, f"{where}, data")
    for key, known in (("paper", papers), ("task", TASKS), ("policy", POLICIES)):
        if entry[key] not in known:
            raise PublishedResultsError(
                f"{where}: {key} {entry[key]!r} is unknown: use one of {', '.join(known)}"
            )
    for name, value in entry["metrics"].items():
        _check_value(name, value, where)
    if not entry["metrics"] and "note" not in entry:
        raise PublishedResultsError(f"{where} has no values: say why in `note`")
    if not entry["metrics"] and entry["verified"]:
        raise PublishedResultsError(f"{where} has no values, so nothing can be verified")
    if "property" in entry and "mean_over" in entry:
        raise PublishedResultsError(f"{where}: give `property` or `mean_over`, not both")
    data = entry["data"]
    return Entry(
        **{key: entry[key] for key in _ENTRY if key not in ("paper", "data")},
        **{key: entry[key] for key in _OPTIONAL if key in entry and key != "mean_over"},
        paper=papers[entry["paper"]],
        source=data["source"],
        split=data["split"],
        n=data.get("n"),
        mean_over=tuple(entry.get("mean_over", ())),
    )


def _check(value: Any, needed: Mapping, optional: Mapping, where: str) -> None:
    """Refuse a mapping with missing, unknown or mistyped keys."""
    if not isinstance(value, dict):
        raise PublishedResultsError(f"{where} is {value!r}, not a mapping of {_join(needed)}")
    unknown = [key for key in value if key not in needed and key not in optional]
    if unknown:
        raise PublishedResultsError(
            f"{where} has the unknown key {unknown[0]!r}: use {_join([*needed, *optional])}"
        )
    missing = [key for key in needed if key not in value]
    if missing:
        raise PublishedResultsError(f"{where} lacks {_join(missing)}")
    for key, kind in {**needed, **optional}.items():
        if key in value and not isinstance(value[key], kind):
            raise PublishedResultsError(
                f"{where}: {key} is {value[key]!r}, not of type {kind.__name__}"
            )
        if key in value and kind is str and not value[key].strip():
            raise PublishedResultsError(f"{where}: {key} is empty")


def _check_value(name: str, value: Any, where: str) -> None:
    if name not in METRICS:
        raise PublishedResultsError(
            f"{where}: score {name!r} is unknown: use one of {_join(METRICS)}"
        )
    metric = METRICS[name]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not metric.low <= value <= metric.high:
        raise PublishedResultsError(
            f"{where}: {name} is {value!r}, which is not a number from {metric.low:g} to "
            f"{metric.high:g}; shares are written as 0.5, not as 50"
        )


def _join(names: Iterable[str]) -> str:
    return ", ".join(names)
