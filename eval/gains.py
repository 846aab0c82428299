# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""How much better one method's answers are than another's to the same questions."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np

from eval.bootstrap import RESAMPLES, percentile_interval, resample
from eval.metric_names import METRICS, TASKS
from eval.result_files import Run, Score
from eval.scores import metric_arguments, metric_module
from modeling_mora.tasks_mora import Property, Task, get_task

# Where more of the resamples have no gain, because the other method scores 0, there is no interval.
MOST_UNDEFINED = 0.025

Statistics = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Question:
    """What two methods must have in common to be compared; see `Score` and `Run.data`."""

    task: str
    source: str
    property: str | None
    unit: str | None
    notation: str
    tokenizer: str | None
    split: str
    policy: str
    dataset_sha256: str


@dataclass(frozen=True)
class Gain:
    """The gain of our method over theirs in one score of one question.

    Attributes:
        question: what was asked.
        metric: name of the score.
        n: number of rows.
        ours: the score of each of our runs; None where it could not be computed.
        theirs: the same of theirs.
        gain: (ours - theirs) / theirs of the means over runs, with the other sign where lower is
            better, so that positive is always better; None where it is not defined.
        low: end of its 95% interval.
        high: the other end.
        read: share of our and of their answers that hold a number, which an error is the mean
            over; None for other tasks.
    """

    question: Question
    metric: str
    n: int
    ours: tuple[float | None, ...]
    theirs: tuple[float | None, ...]
    gain: float | None
    low: float | None = None
    high: float | None = None
    read: tuple[float, float] | None = None

    @property
    def change(self) -> float | None:
        """(ours - theirs) / theirs, as papers give it: -0.22 for an error that is 22% lower."""
        if self.gain is None:
            return None
        return self.gain if METRICS[self.metric].higher_is_better else -self.gain


def find_gains(
    ours: Sequence[Run], theirs: Sequence[Run], metric: str | None = None, seed: int = 0
) -> list[Gain]:
    """The gains in all questions that the runs were asked, in the order of `TASKS`.

    Several runs of a side are trainings of one method with several seeds: their scores are
    averaged.

    Args:
        ours: runs of our method.
        theirs: runs of the method that it is compared with.
        metric: name of a score; None for the first of each task's table.
        seed: of the bootstrap.

    Raises:
        ValueError: the sides were not asked the same, a side mixes methods or holds the same
            weights twice, or the score is none that a relative gain can be given of.
    """
    if metric is not None:
        check_metric(metric)
    asked, asked_of_them = by_question(ours), by_question(theirs)
    for mine, others in ((asked, asked_of_them), (asked_of_them, asked)):
        for question in mine:
            if question not in others:
                raise ValueError(_difference(question, mine[question][0][0], others))
    gains = []
    for question in sorted(asked, key=lambda question: list(TASKS).index(question.task)):
        both = asked[question], asked_of_them[question]
        name = metric or TASKS[question.task][1][0]
        if all(name in score.metrics for side in both for _, score in side):
            sides = [[run for run, _ in side] for side in both]
            gain = find_gain(question, name, *sides, seed)
            if all("parsed" in score.metrics for side in both for _, score in side):
                read = (_mean_read(side) for side in both)
                gain = replace(gain, read=tuple(read))
            gains.append(gain)
    if not gains:
        there = {name for found in asked.values() for _, score in found for name in score.metrics}
        raise ValueError(f"no task here is scored by {metric}: use one of {', '.join(there)}")
    return gains


def check_metric(name: str) -> None:
    """Refuse what is no score, or one whose zero is not the worst or best that can be.

    Raises:
        ValueError: names the scores that can be used.
    """
    usable = [key for key, m in METRICS.items() if m.higher_is_better is not None and m.low == 0]
    if name not in usable:
        kind = "has no relative gain" if name in METRICS else "is no score"
        raise ValueError(f"metric {name!r} {kind}: use one of {', '.join(usable)}")


def by_question(runs: Sequence[Run]) -> dict[Question, list[tuple[Run, Score]]]:
    """The runs that were asked each question, with their scores, without controls.

    Raises:
        ValueError: two runs of a question are of two methods, or of the same weights.
    """
    found: dict[Question, list[tuple[Run, Score]]] = {}
    for run in runs:
        for score in run.scores:
            if score.control is not None:
                continue
            question = Question(
                score.task,
                score.source,
                score.property,
                score.unit,
                score.notation,
                score.tokenizer,
                run.data["split"],
                run.policy,
                run.data["dataset_sha256"],
            )
            for other, _ in found.setdefault(question, []):
                if other.method != run.method:
                    raise ValueError(
                        f"{other.path} is of method {other.method} and {run.path} of {run.method}: "
                        "the runs of a side are averaged, so give those of one method"
                    )
                if other.settings["adapter_sha256"] == run.settings["adapter_sha256"]:
                    raise ValueError(
                        f"{other.path} and {run.path} are of the same weights: give one of them"
                    )
            found[question].append((run, score))
    return found


def find_gain(
    question: Question, metric: str, ours: Sequence[Run], theirs: Sequence[Run], seed: int
) -> Gain:
    """The gain in one score, and its interval by resampling rows.

    Each resample takes the same rows of all runs and averages over the runs, so what makes a row
    hard for all of them cancels. The interval is about other rows, not about other trainings.

    Raises:
        ValueError: the predictions are not about the same rows.
    """
    runs = [*ours, *theirs]
    records = [run.rows(question.task, question.source, None, question.property) for run in runs]
    for run, lines in zip(runs[1:], records[1:], strict=True):
        _check_rows(runs[0], records[0], run, lines)
    name, rows = _statistics(question, metric, records)

    def scores(index: np.ndarray) -> list[float | None]:
        aggregate = metric_module(name).aggregate
        return [
            aggregate({key: column[index] for key, column in one.items()})[metric] for one in rows
        ]

    relative = partial(relative_gain, metric=metric)
    n, k = len(records[0]), len(ours)
    values = scores(np.arange(n))
    gain = relative(values[:k], values[k:])
    ends: tuple[float | None, float | None] = (None, None)
    if gain is not None:
        sampled = [relative(found[:k], found[k:]) for found in map(scores, resample(n, seed))]
        defined = [value for value in sampled if value is not None]
        if len(defined) >= (1 - MOST_UNDEFINED) * RESAMPLES:
            ends = percentile_interval(defined)
    return Gain(question, metric, n, tuple(values[:k]), tuple(values[k:]), gain, *ends)


def relative_gain(
    ours: Sequence[float | None], theirs: Sequence[float | None], metric: str
) -> float | None:
    """Gain of the mean of some scores over the mean of others; see `Gain`."""
    if None in ours or None in theirs or not np.mean(theirs):
        return None
    change = float(np.mean(ours) / np.mean(theirs)) - 1
    return change if METRICS[metric].higher_is_better else -change


def _mean_read(side: Sequence[tuple[Run, Score]]) -> float:
    return float(np.mean([score.metrics["parsed"].value for _, score in side]))


def _statistics(
    question: Question, metric: str, records: Sequence[Sequence[Mapping]]
) -> tuple[str, list[Statistics]]:
    """The metric module that has a score, and its statistics of each run's rows."""
    task = _task(question, records[0])
    for name in task.metrics:
        module = metric_module(name)
        rows = [
            module.score_rows(
                **metric_arguments(name, lines, task, question.tokenizer or "words"),
                policy=question.policy,
            )
            for lines in records
        ]
        if metric in module.aggregate(rows[0]):
            return name, rows
    raise ValueError(f"{question.task} is not scored by {metric}")


def _task(question: Question, records: Sequence[Mapping]) -> Task:
    """The task, as far as its answers have to be read."""
    settings: dict = {"notation": question.notation}
    if question.task == "property_prediction":
        names = dict.fromkeys(record["property"] for record in records)
        settings["properties"] = {name: Property(name, question.unit or "") for name in names}
    return get_task(question.task, **settings)


def _check_rows(
    first: Run, records: Sequence[Mapping], other: Run, others: Sequence[Mapping]
) -> None:
    def rows(lines: Sequence[Mapping]) -> list[tuple]:
        return [(line["id"], line["property"], line["reference"]) for line in lines]

    both = zip(rows(records), rows(others), strict=False)
    different = next((pair for pair in both if pair[0] != pair[1]), None)
    if different is None and len(records) == len(others):
        return
    what = f"{len(records)} and {len(others)}"
    if different is not None:
        what = f"{different[0]!r} and {different[1]!r}"
    raise ValueError(
        f"the predictions beside {first.path} and {other.path} are not about the same rows "
        f"({what}): score both again on the same data"
    )


def _difference(
    question: Question, run: Run, others: Mapping[Question, list[tuple[Run, Score]]]
) -> str:
    """Why a question has no counterpart: in what the nearest one differs."""
    mine = asdict(question)

    def differing(other: Question) -> list[str]:
        return [key for key, value in asdict(other).items() if value != mine[key]]

    nearest = min(others, key=lambda other: len(differing(other)))
    parts = [
        f"{key} is {mine[key]!r} in one and {getattr(nearest, key)!r} in the other"
        for key in differing(nearest)
    ]
    return (
        f"{run.path} and {others[nearest][0][0].path} cannot be compared: {'; '.join(parts)}. "
        "Score both with eval.benchmark on the same rows, with the same policy"
    )
