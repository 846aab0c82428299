# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Relative gains and their paired intervals, against hand-made answers and SciPy."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from result_files import write_results
from scipy.stats import bootstrap

from eval.gains import Gain, find_gains, relative_gain
from eval.plots.gains import BETTER, OPEN, WORSE, colour, draw_gains
from eval.result_files import Run, read_runs

N = 120


def off_by(errors: Sequence[float]) -> Callable[[dict], dict]:
    """Answers that are off by these numbers, row by row; None for no number."""

    def answer(row: dict) -> dict:
        error = errors[int(row["id"].removeprefix("toy-"))]
        return {"text": "?" if error is None else repr(float(row["reference"]) + error)}

    return answer


def right_in(rows: Sequence[int]) -> Callable[[dict], dict]:
    """Molecules that are right in these rows alone."""
    return lambda row: {
        "text": row["reference"] if int(row["id"].removeprefix("toy-")) in rows else "C"
    }


@pytest.fixture
def numbers(tmp_path: Path) -> Callable[..., Run]:
    """Makes a run that answers with these errors."""

    def make(name: str, errors: Sequence[float], **settings) -> Run:
        known = {"model": name, "n": len(errors), "answer": off_by(errors), **settings}
        return read_runs([write_results(tmp_path / name, "property_prediction", **known)])[0]

    return make


@pytest.fixture
def molecules(tmp_path: Path) -> Callable[..., Run]:
    """Makes a run that is right in these rows."""

    def make(name: str, rows: Sequence[int], n: int = 100, **settings) -> Run:
        known = {"model": name, "n": n, "answer": right_in(rows), **settings}
        return read_runs([write_results(tmp_path / name, **known)])[0]

    return make


def errors(seed: int, scale: float = 0.02) -> list[float]:
    chance = random.Random(seed)
    return [chance.expovariate(1 / scale) for _ in range(N)]


def test_a_lower_error_is_a_gain_and_a_negative_change(numbers):
    asked_too = {"controls": ("no_molecule", "training_mean")}
    ours, theirs = numbers("a", [0.015] * N, **asked_too), numbers("b", [-0.02] * N)
    (gain,) = find_gains([ours], [theirs])
    assert (gain.metric, gain.n, gain.question.property) == ("mae", N, "gap")
    assert gain.ours == (pytest.approx(0.015),) and gain.theirs == (pytest.approx(0.02),)
    assert gain.gain == pytest.approx(0.25) and gain.change == pytest.approx(-0.25)
    assert (gain.low, gain.high) == (pytest.approx(0.25), pytest.approx(0.25))
    assert gain.read == (1.0, 1.0)


def test_more_right_answers_are_a_gain_and_a_positive_change(molecules):
    ours, theirs = molecules("a", range(50)), molecules("b", range(40))
    (gain,) = find_gains([ours], [theirs])
    assert (gain.metric, gain.ours, gain.theirs) == ("exact_match", (0.5,), (0.4,))
    assert gain.gain == gain.change == pytest.approx(0.25)
    assert 0 < gain.low < 0.25 < gain.high
    (loss,) = find_gains([theirs], [ours])
    assert loss.gain == loss.change == pytest.approx(-0.2)


def test_both_are_resampled_by_the_same_rows(numbers):
    """Errors of very different size, of which ours are always half: the gain is always a half."""
    theirs = errors(0, 0.1)
    (gain,) = find_gains([numbers("a", [e / 2 for e in theirs])], [numbers("b", theirs)])
    assert (gain.low, gain.gain, gain.high) == (pytest.approx(0.5),) * 3


def test_the_interval_is_that_of_scipy(numbers):
    a, b, c = errors(1), errors(2, 0.015), [2 * e for e in errors(1)]
    ours = [numbers("a", a), numbers("b", b)]

    def statistic(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
        return 1 - (a.mean() + b.mean()) / 2 / c.mean()

    expected = bootstrap(
        (a, b, c), statistic, paired=True, vectorized=False, n_resamples=5000,
        method="percentile", rng=0,
    ).confidence_interval  # fmt: skip
    theirs = [numbers("c", c)]
    (gain,) = find_gains(ours, theirs)
    width = expected.high - expected.low
    assert gain.gain == pytest.approx(statistic(*map(np.array, (a, b, c))))
    assert gain.low == pytest.approx(expected.low, abs=0.1 * width)
    assert gain.high == pytest.approx(expected.high, abs=0.1 * width)
    (other,) = find_gains(ours, theirs, seed=1)
    assert other.gain == gain.gain and other.low != gain.low


def test_scores_of_several_seeds_are_averaged(numbers):
    ours = [numbers("a", [0.01] * N), numbers("b", [0.03] * N)]
    theirs = [numbers(f"c{i}", [error] * N) for i, error in enumerate((0.02, 0.04, 0.06))]
    (gain,) = find_gains(ours, theirs)
    assert gain.gain == pytest.approx(0.5)
    assert [round(value, 6) for value in gain.theirs] == [0.02, 0.04, 0.06]


def test_answers_that_hold_no_number_are_counted(numbers):
    half = [0.01 if i % 2 else None for i in range(N)]
    (gain,) = find_gains([numbers("a", half)], [numbers("b", [0.02] * N)])
    assert gain.gain == pytest.approx(0.5) and gain.read == (0.5, 1.0)


def test_each_property_and_all_together(tmp_path: Path):
    def run(name: str, homo: float, gap: float) -> Run:
        def answer(row: dict) -> dict:
            error = {"homo": homo, "gap": gap}[row["property"]]
            return {"text": repr(float(row["reference"]) + error)}

        path = write_results(
            tmp_path / name, "property_prediction", model=name, answer=answer, n=30,
            properties=("homo", "gap"),
        )  # fmt: skip
        return read_runs([path])[0]

    gains = find_gains([run("a", 0.01, 0.02)], [run("b", 0.02, 0.02)])
    found = {gain.question.property: gain.gain for gain in gains}
    assert found == {"homo": pytest.approx(0.5), "gap": pytest.approx(0)}


@pytest.mark.parametrize(
    ("task", "metric"),
    [
        ("retrosynthesis", "exact_match"),
        ("retrosynthesis", "morgan"),
        ("retrosynthesis", "levenshtein"),
        ("property_classification", "roc_auc"),
        ("molecule_captioning", "rougeL"),
        ("property_prediction", "rmse"),
    ],
)
def test_scores_are_those_of_the_results(tmp_path: Path, task: str, metric: str):
    runs = [
        read_runs([write_results(tmp_path / name, task, model=name, n=40, quality=quality)])
        for name, quality in (("a", 0.8), ("b", 0.4))
    ]
    (gain,) = find_gains(*runs, metric)
    for values, (run,) in zip((gain.ours, gain.theirs), runs, strict=True):
        assert values == (pytest.approx(run.scores[0].metrics[metric].value),)
    assert gain.low < gain.gain < gain.high and gain.gain > 0


def test_no_gain_over_nothing(molecules):
    (gain,) = find_gains([molecules("a", range(9))], [molecules("b", [])])
    assert (gain.gain, gain.change, gain.low, gain.high) == (None,) * 4
    (rare,) = find_gains([molecules("a", range(9))], [molecules("c", [1])])
    assert rare.gain == pytest.approx(8)
    assert (rare.low, rare.high) == (None, None)  # in a third of the resamples theirs score 0
    assert relative_gain([None, 0.5], [0.5], "exact_match") is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy": "published"}, "policy is 'strict' in one and 'published' in the other"),
        ({"source": "uspto"}, "source is 'toy' in one and 'uspto' in the other"),
        ({"notation": "selfies"}, "notation is 'smiles' in one and 'selfies'"),
        (
            {"data": {"name": "toy", "split": "train", "dataset_sha256": "e" * 64,
                      "rows_in_split": 100, "rows_scored": 100}},
            "split is 'test' in one and 'train' in the other; dataset_sha256 is 'ddd",
        ),
        ({"n": 90}, "not about the same rows .100 and 90."),
    ],
)  # fmt: skip
def test_what_was_not_asked_the_same_is_refused(molecules, settings: dict, message: str):
    ours, theirs = molecules("a", range(9)), molecules("b", range(8), **settings)
    with pytest.raises(ValueError, match=rf"a/results\.json and .*b/results\.json .*{message}"):
        find_gains([ours], [theirs])


def test_a_question_that_one_side_was_not_asked_is_refused(molecules, numbers):
    both = [molecules("a", range(9)), numbers("n", [0.1] * N)]
    for sides in ((both, [molecules("b", [1])]), ([molecules("b", [1])], both)):
        with pytest.raises(ValueError, match="task is '.*' in one and"):
            find_gains(*sides)


def test_a_side_is_one_method_and_each_training_once(molecules):
    ours, theirs = molecules("a", range(9)), molecules("b", range(8), method="lora")
    with pytest.raises(ValueError, match=r"a/results\.json is of method mora and .* of lora"):
        find_gains([ours, theirs], [theirs])
    again = molecules("again", range(9), adapter_sha256=ours.settings["adapter_sha256"])
    with pytest.raises(ValueError, match="again/results.json are of the same weights"):
        find_gains([theirs], [ours, again])


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("r2", "metric 'r2' has no relative gain: use one of exact_match"),
        ("n_valid", "'n_valid' has no relative gain"),
        ("accuracy", "'accuracy' is no score: use one of exact_match"),
        ("mae", "no task here is scored by mae: use one of .*exact_match"),
    ],
)
def test_scores_without_a_relative_gain(molecules, metric: str, message: str):
    with pytest.raises(ValueError, match=message):
        find_gains([molecules("a", [1])], [molecules("b", [2])], metric)


def test_the_plot_shows_gain_interval_and_side(molecules):
    (gain,) = find_gains([molecules("a", range(60))], [molecules("b", range(30))])
    (worse,) = find_gains([molecules("b", range(30))], [molecules("a", range(60))])
    (open_,) = find_gains([molecules("c", range(1, 31))], [molecules("b", range(30))])
    (undefined,) = find_gains([molecules("a", range(9))], [molecules("d", [])])
    gains: list[Gain] = [gain, worse, open_, undefined]
    assert [colour(one) for one in gains] == [BETTER, WORSE, OPEN, OPEN]
    axes = Figure().subplots()
    draw_gains(axes, gains)
    drawn = [container.lines for container in axes.containers]
    assert [points.get_xdata()[0] for points, _, _ in drawn] == [one.gain for one in gains[:3]]
    for one, (_, _, (bar,)) in zip(gains, drawn, strict=False):
        assert bar.get_segments()[0][:, 0] == pytest.approx([one.low, one.high])
    assert [text.get_text() for text in axes.texts] == ["+100.0%", "-50.0%", "+0.0%", "not defined"]
    assert axes.get_yticklabels()[0].get_text() == "Retrosynthesis, toy\nexact match↑, n = 100"
