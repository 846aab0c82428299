# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The tables of a report: our rows beside the published numbers of the field."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from eval.metric_names import (
    CONTROLS,
    TASKS,
    decimals,
    main_and_further,
    write_interval,
    write_published,
    write_value,
)
from eval.published_results import Entry
from eval.result_files import Run, Score, Value

METHODS = {
    "mora": "MoRA",
    "lora": "LoRA",
    "graph_prefix": "graph prefix",
    "full_finetune": "full fine-tuning",
    "base": "base model",
}
# The order of the rows below a model.
_CONTROL_ORDER = (None, *CONTROLS)
_SEED = re.compile(r"(?i)seed[-_]?\d+")


@dataclass(frozen=True)
class Row:
    """One line of a table, ready to be written.

    Attributes:
        name: model or control.
        kind: `model`, `control`, `mean` (over seeds) or `published`.
        property: property or label with its unit; empty where the task has none.
        method: how the model was made; empty for published rows.
        n: number of rows, as text.
        cells: score -> value, and below it its interval or spread; absent where not reported.
        differs: for published rows, in what they are not comparable with ours: what -> how it is
            there.
        url: of the paper, for published rows.
    """

    name: str
    kind: str
    property: str
    method: str
    n: str
    cells: dict[str, str]
    differs: Mapping[str, str] = field(default_factory=dict)
    url: str = ""


@dataclass(frozen=True)
class Section:
    """What is compared with each other: one task, one data set and split, one policy.

    Attributes:
        task: key of `eval.metric_names.TASKS`.
        source: where the rows come from.
        data: name of the data that was scored.
        split: of it.
        dataset_sha256: its fingerprint.
        policy: how answers were counted.
        notation: `smiles` or `selfies`.
        tokenizer: of caption scores, else None.
        runs: the runs that scored it.
    """

    task: str
    source: str
    data: str
    split: str
    dataset_sha256: str
    policy: str
    notation: str
    tokenizer: str | None
    runs: tuple[Run, ...]

    @property
    def title(self) -> str:
        """Task, data, split, policy and an unusual notation in one line."""
        data = self.source if self.data == self.source else f"{self.source} ({short(self.data)})"
        notation = ", SELFIES" if self.notation == "selfies" else ""
        return f"{TASKS[self.task][0]}: {data}, {self.split} split, policy {self.policy}{notation}"

    def scores(self, run: Run) -> list[Score]:
        """The scores of a run that belong here."""
        return [
            score
            for score in run.scores
            if (score.task, score.source, score.notation, score.tokenizer)
            == (self.task, self.source, self.notation, self.tokenizer)
        ]


def find_sections(runs: Iterable[Run]) -> list[Section]:
    """Put together what may stand in one table, in the order of `TASKS`.

    Runs of another policy, split or fingerprint of the data get a section of their own, and so do
    another notation and another tokenizer.
    """
    members: dict[tuple, dict[int, Run]] = {}
    for run in runs:
        data = run.data
        for score in run.scores:
            key = (
                score.task,
                score.source,
                data["name"],
                data["split"],
                data["dataset_sha256"],
                run.policy,
                score.notation,
                score.tokenizer,
            )
            members.setdefault(key, {})[run.number] = run
    order = list(TASKS)
    sections = [Section(*key, tuple(found.values())) for key, found in members.items()]
    return sorted(sections, key=lambda section: order.index(section.task))


def short(path: str) -> str:
    """The last two parts of a path: enough to tell runs apart, short enough for a table."""
    parts = [part for part in path.replace("\\", "/").split("/") if part]
    return "/".join(parts[-2:]) or path


def run_name(run: Run) -> str:
    """A model's name in tables and legends; the number leads to its full path."""
    return f"{run.number} {short(run.model)}"


def our_rows(section: Section) -> list[Row]:
    """Rows of a section, by property, then by model, each model followed by its controls.

    Runs whose models' names differ only in `seed<number>` stand together and are followed by
    their mean and standard deviation.
    """
    rows = []
    for property in _properties(section):
        for seeds in _seed_groups(section.runs):
            found = {
                run.number: {
                    score.control: score
                    for score in section.scores(run)
                    if score.property == property
                }
                for run in seeds
            }
            for run in seeds:
                rows += _run_rows(run, found[run.number])
            if len(seeds) > 1:
                rows += _mean_rows(seeds, list(found.values()))
    return rows


def _properties(section: Section) -> list[str | None]:
    """Each property in the order of the files; all together come last."""
    found = dict.fromkeys(score.property for run in section.runs for score in section.scores(run))
    return sorted(found, key=lambda property: property is None)


def _seed_groups(runs: Sequence[Run]) -> list[list[Run]]:
    groups: dict[tuple, list[Run]] = {}
    scored: Counter[str] = Counter()
    for run in runs:
        # Two runs of one name are one model scored twice, and no two seeds.
        scored[run.model] += 1
        stem = _SEED.sub("seed", run.model)
        key = (stem, scored[run.model], run.method, run.settings["base_fingerprint"])
        groups.setdefault(key, []).append(run)
    return list(groups.values())


def _run_rows(run: Run, scores: dict[str | None, Score]) -> list[Row]:
    rows = []
    for control in _CONTROL_ORDER:
        if control not in scores:
            continue
        score = scores[control]
        name = run_name(run) if control is None else CONTROLS[control]
        cells = {metric: _cell(metric, value) for metric, value in score.metrics.items()}
        method = METHODS.get(run.method, run.method) if control is None else ""
        kind = "model" if control is None else "control"
        rows.append(Row(name, kind, _property_name(score), method, f"{score.n:,}", cells))
    return rows


def _cell(metric: str, value: Value) -> str:
    text = write_value(metric, value.value)
    if value.value is None or value.low is None:
        return text
    return f"{text}\n{write_interval(metric, value.value, value.low, value.high)}"


def _mean_rows(runs: Sequence[Run], found: Sequence[dict[str | None, Score]]) -> list[Row]:
    rows = []
    for control in _CONTROL_ORDER:
        scores = [scores[control] for scores in found if control in scores]
        # The mean of the training answers knows no seed, and a mean over other rows is no mean.
        if control == "training_mean" or len(scores) < 2 or len({s.n for s in scores}) > 1:
            continue
        cells = {}
        for metric in scores[0].metrics:
            values = [s.metrics[metric].value for s in scores if metric in s.metrics]
            if len(values) == len(scores) and None not in values:
                mean, spread = float(np.mean(values)), float(np.std(values, ddof=1))
                cells[metric] = (
                    f"{write_value(metric, mean)}\n± {spread:.{decimals(metric, mean)}f}"
                )
            else:
                cells[metric] = write_value(metric, None)
        of = "" if control is None else f", {CONTROLS[control]}"
        name = f"mean ± std of {len(scores)} seeds{of}"
        method = METHODS.get(runs[0].method, runs[0].method) if control is None else ""
        rows.append(Row(name, "mean", _property_name(scores[0]), method, f"{scores[0].n:,}", cells))
    return rows


def _property_name(score: Score) -> str:
    if score.property is None:
        return "all together" if score.task.startswith("property_") else ""
    return f"{score.property} ({score.unit})" if score.unit else score.property


def published_rows(section: Section, entries: Iterable[Entry]) -> list[Row]:
    """The published numbers of the same task and property, with what is not comparable."""
    scores = [score for run in section.runs for score in section.scores(run)]
    properties = {score.property for score in scores} - {None}
    rows = []
    for entry in entries:
        asked = {entry.property} if entry.property else set(entry.mean_over)
        if entry.task != section.task or (asked or properties) and not asked & properties:
            continue
        property = entry.property or (f"mean of {', '.join(entry.mean_over)}" if asked else "")
        if entry.unit:
            property = f"{property} ({entry.unit})"
        rows.append(
            Row(
                entry.model + ("" if entry.verified else " †"),
                "published",
                property,
                "",
                "–" if entry.n is None else f"{entry.n:,}",
                {metric: write_published(value) for metric, value in entry.metrics.items()},
                _differences(section, entry, scores),
                entry.paper.url,
            )
        )
    return rows


def _differences(section: Section, entry: Entry, scores: Sequence[Score]) -> dict[str, str]:
    """In what a published row is not comparable with ours."""
    differences = {}
    if entry.source != section.source:
        differences["data"] = entry.source
    elif entry.split != section.split:
        differences["split"] = entry.split
    elif {score.n for score in scores} != {entry.n}:
        differences["n"] = "not known" if entry.n is None else f"{entry.n:,}"
    if entry.policy != section.policy:
        differences["policy"] = entry.policy
    if entry.unit and entry.unit not in {score.unit for score in scores}:
        differences["unit"] = entry.unit
    if entry.base not in {run.settings["base_model"] for run in section.runs}:
        differences["base"] = entry.base
    return differences


def section_rows(section: Section, entries: Iterable[Entry]) -> list[Row]:
    """Our rows, each property's followed by what was published for it."""
    published = published_rows(section, entries)
    rows: list[Row] = []
    ours = our_rows(section)
    for property in dict.fromkeys(row.property for row in ours):
        rows += [row for row in ours if row.property == property]
        rows += [row for row in published if row.property == property]
    return rows + [row for row in published if row not in rows]


def table_columns(section: Section, rows: Iterable[Row]) -> tuple[list[str], list[str]]:
    """Names of the scores of the first table and of the second, which may have none."""
    return main_and_further(section.task, {metric for row in rows for metric in row.cells})
