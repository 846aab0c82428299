# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The plots of a report: the numbers they draw."""

import math
import random
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread
from result_files import toy_answer, toy_rows

from eval.plots.answers import Answers, count_heavy_atoms
from eval.plots.cases import draw_molecule, find_cases, save_cases
from eval.plots.error_by_size import (
    draw_by_size,
    error_by_size,
    save_error_by_size,
    share_by_size,
    size_bins,
)
from eval.plots.figure import shorten
from eval.plots.reaction_classes import (
    class_names,
    draw_reaction_classes,
    has_classes,
    match_by_class,
)
from eval.plots.roc_curves import draw_roc, save_roc_curves
from eval.plots.similarity import draw_ends, draw_histograms, save_similarity, shares
from eval.plots.wilson import wilson


@pytest.fixture
def axes() -> Axes:
    return Figure().subplots()


def answers(rows: list[dict], task: str = "retrosynthesis", **settings) -> Answers:
    """Answers to rows that need hold only what a test is about."""
    common = {"task": task, "property": None, "group": None, "molecule": "CCO", "finished": True}
    rows = [common | {"id": str(i), "prompt": "?"} | row for i, row in enumerate(rows)]
    known = {"name": "model", "control": None, "policy": "strict", "notation": "smiles"}
    return Answers(task=task, rows=rows, **{**known, "units": {}, **settings})


def pairs(*texts: tuple[str, str], **settings) -> Answers:
    """Molecules as (answer, truth)."""
    return answers([{"text": text, "reference": truth} for text, truth in texts], **settings)


def numbers(*values: tuple[str, float], **settings) -> Answers:
    """Numbers as (answer, truth)."""
    rows = [{"text": text, "reference": str(truth), "property": "gap"} for text, truth in values]
    settings = {"units": {"gap": "hartree"}, **settings}
    return answers(rows, "property_prediction", **settings)


def many(task: str, n: int, quality: float = 0.5, **settings) -> Answers:
    chance = random.Random(0)
    rows = [row | toy_answer(row, quality, chance) for row in toy_rows(task, n)]
    return answers(rows, task, **settings)


class TestAnswers:
    def test_molecules_are_scored_by_the_policy(self):
        # Same molecule; other stereo; no molecule.
        found = pairs(("OCC", "CCO"), ("C[C@H](N)O", "C[C@@H](N)O"), ("C(", "CC"))
        assert found.exact_match.tolist() == [1, 0, 0]
        assert found.similarity[:2] == pytest.approx([1, 1])
        assert math.isnan(found.similarity[2])
        without = pairs(("OCC", "CCO"), ("C[C@H](N)O", "C[C@@H](N)O"), policy="published")
        assert without.exact_match.tolist() == [1, 1]

    def test_numbers_are_read_in_their_unit_and_never_from_a_cut_off_text(self):
        found = numbers(("0.25", 0.2), ("0.25 eV", 0.2), ("0.3 hartree", 0.2), ("none", 0.2))
        assert found.errors[[0, 2]] == pytest.approx([0.05, 0.1])
        assert np.isnan(found.errors).tolist() == [False, True, False, True]
        found.rows[0]["finished"] = False
        cut = answers(found.rows, "property_prediction", units={"gap": "hartree"})
        assert math.isnan(cut.values[0])

    def test_each_property_has_its_own_unit(self):
        rows = [
            {"property": name, "text": "1.5 kcal/mol", "reference": "1.0"} for name in ("a", "b")
        ]
        units = {"a": "kcal/mol", "b": "hartree"}
        found = answers(rows, "property_prediction", units=units)
        assert np.isnan(found.values).tolist() == [False, True]
        assert found.properties == ["a", "b"]
        assert found.of("b").rows == found.rows[1:]

    def test_yes_and_no(self):
        rows = [
            {"text": "Yes", "reference": "Yes", "p_yes": 0.9},
            {"text": "No", "reference": "No", "p_yes": 0.2},
            {"text": "No", "reference": "unknown", "p_yes": 0.4},
        ]
        found = answers(rows, "property_classification")
        assert found.labels[:2].tolist() == [1, 0]
        assert found.probabilities[:2].tolist() == [0.9, 0.2]
        assert np.isnan([found.labels[2], found.probabilities[2]]).all()

    def test_heavy_atoms(self):
        assert count_heavy_atoms("CCO.[Na+]") == 4
        assert math.isnan(count_heavy_atoms(None))
        assert math.isnan(count_heavy_atoms("C("))


class TestSize:
    def test_bins_hold_about_equally_many_rows_and_leave_no_gap(self):
        sizes = np.array([3, 3, 3, 4, 5, 6, 7, 20, math.nan])
        bins = size_bins(sizes, at_most=4)
        assert bins == [(3, 3), (4, 4), (5, 6), (7, 20)]
        assert size_bins(np.array([5, 5])) == [(5, 5)]
        assert size_bins(np.array([math.nan])) == []

    def test_every_row_is_in_one_bin(self):
        sizes = np.random.default_rng(0).integers(1, 60, 5000).astype(float)
        bins = size_bins(sizes)
        assert len(bins) == 8
        inside = [((sizes >= first) & (sizes <= last)).sum() for first, last in bins]
        assert sum(inside) == 5000
        assert min(inside) > 400

    def test_share_of_exact_matches(self):
        rows = [{"molecule": m, "reference": "CC", "text": t} for m, t in
                [("C", "CC"), ("CC", "CC"), ("CC", "CO"), ("CCCC", "")]]  # fmt: skip
        found = share_by_size(answers(rows), [(1, 2), (3, 3), (4, 9)])
        assert found[:, 0] == pytest.approx([2 / 3, math.nan, 0], nan_ok=True)
        assert found[:, 3].tolist() == [3, 0, 1]
        # Wilson, by hand for 2 of 3 with z = 1.96.
        assert found[0, 1:3] == pytest.approx([0.2077, 0.9385], abs=1e-4)
        assert found[2, 1:3] == pytest.approx([0, 0.7935], abs=1e-4)

    def test_quartiles_of_the_error_are_over_what_was_read(self):
        found = numbers(("1", 1.1), ("1", 1.2), ("1", 1.3), ("?", 9.0), ("?", 1.0))
        for row, molecule in zip(found.rows, ["C", "CC", "C", "C", "CCCC"], strict=True):
            row["molecule"] = molecule
        table = error_by_size(found, [(1, 2), (4, 4)])
        assert table[0] == pytest.approx([0.2, 0.15, 0.25, 4])
        assert np.isnan(table[1, :3]).all()
        assert table[1, 3] == 1

    def test_panel_draws_each_model_and_says_how_many_rows(self, axes: Axes):
        first, second = many("retrosynthesis", 80, 0.9), many("retrosynthesis", 80, 0.1)
        draw_by_size(axes, [first, second], None)
        lines = [container.lines[0] for container in axes.containers]
        bins = size_bins(first.heavy_atoms)
        assert len(lines) == 2
        for line, one in zip(lines, [first, second], strict=True):
            assert line.get_ydata() == pytest.approx(share_by_size(one, bins)[:, 0])
        labels = [label.get_text() for label in axes.get_xticklabels()]
        assert sum(int(label.split("n=")[1]) for label in labels) == 80
        assert np.all(lines[0].get_xdata() < lines[1].get_xdata())

    def test_error_panel_names_the_unit_and_shows_equal_errors(self, axes: Axes):
        found = numbers(*[("0.31", 0.3)] * 5)
        draw_by_size(axes, [found], "gap")
        assert "(hartree)" in axes.get_ylabel()
        assert axes.get_title() == "gap"
        assert axes.get_ylim()[1] > 0.01

    @pytest.mark.parametrize("text", ["?", ""])
    def test_nothing_read_is_drawn_as_nothing(self, tmp_path: Path, text: str):
        assert save_error_by_size([numbers((text, 0.3), (text, 0.4))], tmp_path / "size.png")
        assert imread(tmp_path / "size.png").shape[0] > 100

    def test_rows_without_molecules_have_no_plot(self, tmp_path: Path):
        found = numbers(("0.3", 0.3))
        found.rows[0]["molecule"] = None
        assert not save_error_by_size([found], tmp_path / "size.png")
        assert not (tmp_path / "size.png").exists()


class TestSimilarity:
    def test_shares_and_counts(self, axes: Axes):
        # Identical; like the truth; no molecule twice.
        found = pairs(("OCC", "CCO"), ("CCN", "CCO"), ("(", "CCO"), ("", "CCO"))
        assert shares(found) == (0.25, 0.5)
        draw_histograms(axes, [found])
        heights = axes.patches[0].get_data().values
        assert heights.sum() == pytest.approx(0.25)
        [place] = np.flatnonzero(heights)
        assert place == int(found.similarity[1] * 20)
        assert axes.get_legend_handles_labels()[1] == ["model: 25.0% identical, 50.0% no molecule"]

    def test_bars_are_the_shares(self, axes: Axes):
        draw_ends(axes, [pairs(("C", "C")), pairs(("C", "C"), ("(", "C"))])
        heights = [[bar.get_height() for bar in group] for group in axes.containers]
        assert heights == [[1.0, 0.0], [0.5, 0.5]]

    def test_no_valid_answer(self, tmp_path: Path):
        save_similarity([pairs(("(", "C"), ("", "C"))], tmp_path / "s.png")
        assert imread(tmp_path / "s.png").shape[0] > 100


class TestClasses:
    def rows(self) -> Answers:
        return answers(
            [
                {"group": "10", "text": "C", "reference": "C"},
                {"group": "2", "text": "C", "reference": "CC"},
                {"group": "2", "text": "CC", "reference": "CC"},
                {"group": None, "text": "C", "reference": "C"},
            ]
        )

    def test_exact_match_with_its_interval(self):
        found = match_by_class(self.rows(), ["2", "10", "7"])
        assert found[:, 0] == pytest.approx([0.5, 1, math.nan], nan_ok=True)
        assert found[:, 3].tolist() == [2, 1, 0]
        assert found[0, 1:3] == pytest.approx([0.0945, 0.9055], abs=1e-4)

    def test_classes_are_in_order_and_named(self, axes: Axes):
        assert class_names([self.rows()]) == ["2", "10"]
        draw_reaction_classes(axes, [self.rows()], ["2", "10"])
        assert [label.get_text() for label in axes.get_yticklabels()] == [
            "2 acylation and related processes (n=2)",
            "10 functional group addition (n=1)",
        ]
        points = axes.containers[0].lines[0]
        assert points.get_xdata().tolist() == [0.5, 1.0]
        # The first class stands on top.
        assert axes.get_ylim()[0] > axes.get_ylim()[1]

    def test_other_data_have_none(self):
        assert has_classes([self.rows()])
        assert not has_classes([pairs(("C", "C"))])


class TestRoc:
    def rows(self, *found: tuple[float, str]) -> Answers:
        rows = [{"p_yes": p, "text": "Yes", "reference": r, "property": "BBBP"} for p, r in found]
        return answers(rows, "property_classification")

    def test_curve_and_area(self, axes: Axes):
        # One of the four pairs of a yes and a no is in the wrong order.
        found = self.rows((0.9, "Yes"), (0.4, "Yes"), (0.6, "No"), (0.1, "No"))
        draw_roc(axes, [found], "BBBP")
        assert axes.texts[0].get_text() == "AUC 0.750"
        curve = axes.lines[1]
        assert (curve.get_xdata()[-1], curve.get_ydata()[-1]) == (1, 1)
        assert (0, 0.5) in list(zip(curve.get_xdata(), curve.get_ydata(), strict=True))
        assert axes.get_title() == "BBBP\n2 yes, 2 no"

    def test_one_class_is_said(self, axes: Axes):
        draw_roc(axes, [self.rows((0.9, "Yes"), (0.4, "Yes"))], "BBBP")
        assert axes.texts[0].get_text() == "one class only"
        assert len(axes.lines[1].get_xdata()) == 0

    def test_many_labels_stand_in_a_grid(self, tmp_path: Path):
        rows = [
            {"p_yes": p, "text": "Yes", "reference": r, "property": f"label {i}"}
            for i in range(6)
            for p, r in ((0.9, "Yes"), (0.2, "No"))
        ]
        save_roc_curves([answers(rows, "property_classification")], tmp_path / "roc.png")
        height, width = imread(tmp_path / "roc.png").shape[:2]
        assert width > 1.5 * height


class TestCases:
    def test_worst_and_best_molecules(self):
        found = pairs(
            ("(", "CCO"), ("CCN", "CCO"), ("c1ccccc1", "CCO"), ("", "CCO"), ("CCO", "CCO")
        )
        cases = find_cases(found, number=2)
        assert [(case.name, case.row["id"]) for case in cases] == [
            ("worst 1", "0"),
            ("worst 2", "2"),
            ("best 1", "4"),
            ("best 2", "1"),
        ]
        assert cases[0].verdict == "no molecule"
        assert cases[1].verdict.startswith("similarity 0.0")
        assert cases[2].verdict == "exact match"

    def test_an_exact_match_beats_another_isomer(self):
        found = pairs(("C[C@H](N)O", "C[C@@H](N)O"), ("CO", "CO"))
        assert [case.row["id"] for case in find_cases(found, 1)] == ["0", "1"]

    def test_worst_and_best_numbers(self):
        found = numbers(("0.5", 0.3), ("0.31", 0.3), ("?", 0.3), ("0.4", 0.3))
        cases = find_cases(found, number=2)
        assert [case.row["id"] for case in cases] == ["2", "0", "1", "3"]
        assert [case.verdict for case in cases][:3] == ["no number", "off by 0.2", "off by 0.01"]

    def test_confident_and_wrong_is_worst(self):
        found = TestRoc().rows((0.9, "No"), (0.6, "Yes"), (0.1, "No"), (0.3, "Yes"))
        cases = find_cases(found, number=1)
        assert [(c.row["id"], c.verdict) for c in cases] == [
            ("0", "P(right answer) 0.10"),
            ("2", "P(right answer) 0.90"),
        ]

    def test_captions_are_ranked_by_their_overlap(self):
        texts = [("It is an acid.", "It is an acid."), ("green", "It is an acid.")]
        found = pairs(*texts, task="molecule_captioning", tokenizer="words")
        assert [case.row["id"] for case in find_cases(found, 1)] == ["1", "0"]

    def test_of_equal_answers_those_about_molecules_of_middle_size_come_first(self):
        found = pairs(*[("C", "C")] * 3, *[("(", "C")] * 3)
        for row, size in zip(found.rows, [1, 5, 40] * 2, strict=True):
            row["molecule"] = "C" * size
        cases = {case.name: case.row["molecule"] for case in find_cases(found, 1)}
        assert cases == {"worst 1": "C" * 5, "best 1": "C" * 5}

    def test_one_row_and_no_readable_row(self):
        assert [case.name for case in find_cases(pairs(("C", "C")))] == ["best 1"]
        found = find_cases(pairs(("(", "C"), ("(", "C"), ("(", "C"), ("(", "C")))
        assert [case.name for case in found] == ["worst 1", "worst 2", "worst 3"]

    def test_equal_answers_give_distinct_rows(self):
        cases = find_cases(numbers(*[("0.3", 0.4)] * 9))
        assert len({case.row["id"] for case in cases}) == 6

    @pytest.mark.parametrize(("text", "notation"), [("CCO", "smiles"), ("[C][O]", "selfies")])
    def test_a_molecule_is_drawn(self, axes: Axes, text: str, notation: str):
        draw_molecule(axes, text, notation)
        assert axes.images[0].get_array().min() < 0.5
        assert axes.get_xlabel() == text
        assert not axes.texts

    @pytest.mark.parametrize(
        ("text", "shown"),
        [("C(($x$_", "C(($x$_"), (" ", "(empty)"), (None, "(no molecule)"), ("C C", "C C")],
    )
    def test_anything_else_is_written(self, axes: Axes, text: str | None, shown: str):
        draw_molecule(axes, text, "smiles")
        assert not axes.images
        assert shown in axes.texts[0].get_text()

    def test_long_answers_are_cut(self, axes: Axes):
        draw_molecule(axes, "N" + "C" * 500 + "(", "smiles")
        text = axes.texts[0].get_text()
        assert len(text) < 320
        assert max(map(len, text.split("\n"))) <= 38
        assert text.endswith("…")

    def test_no_answer_is_taken_for_a_formula(self, tmp_path: Path):
        found = numbers((r"$\frac{$", 0.3))
        found.rows[0]["molecule"] = None
        save_cases(found, find_cases(found), tmp_path / "cases.png")
        assert (tmp_path / "cases.png").is_file()

    @pytest.mark.parametrize(
        "task",
        ["retrosynthesis", "property_prediction", "property_classification", "molecule_captioning"],
    )
    def test_pictures(self, tmp_path: Path, task: str):
        found = many(task, 12, tokenizer="words")
        save_cases(found, find_cases(found), tmp_path / "cases.png")
        image = imread(tmp_path / "cases.png")
        assert min(image.shape[:2]) > 300
        assert image[:, :, :3].std() > 0.01


def test_wilson_interval_of_nothing_is_nothing():
    assert np.isnan(wilson(0, 0)).all()
    assert wilson(0, 10)[:2] == pytest.approx((0, 0))


def test_names_are_cut_in_the_middle():
    assert shorten("short") == "short"
    assert shorten("a" * 30 + "z" * 30, 11) == "aaaaa…zzzzz"
