# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The worst and the best answers of a model, drawn: molecule, answer and truth."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import imread
from rdkit import Chem, rdBase
from rdkit.Chem.Draw import rdMolDraw2D

from eval.metric_names import CAPTION_TASKS, MOLECULE_TASKS
from eval.plots.answers import Answers
from eval.plots.figure import new_figure, save
from modeling_mora.molecules_mora import MoleculeError, parse_molecule

CASES = 3
UNREAD = -np.inf
# Pixels of one drawn molecule.
PICTURE = (480, 300)


@dataclass(frozen=True)
class Case:
    """One answer.

    Attributes:
        name: `worst 1`, `best 1` and so on.
        verdict: how good it is, in words.
        row: the record of `predictions.jsonl`.
    """

    name: str
    verdict: str
    row: Mapping[str, Any]


def find_cases(answers: Answers, number: int = CASES) -> list[Case]:
    """The worst answers, worst first, then the best, best first; no row is among both.

    An answer that cannot be read is never among the best.

    Molecules are ranked by Morgan similarity, below them what is no molecule; numbers by absolute
    error, below them what holds no number; yes and no by the probability of the right answer;
    words by METEOR. Of equally good answers, those about a molecule of middle size come first, as
    the largest are no more than a speck when drawn.
    """
    goodness, verdicts = _goodness(answers)
    sizes = np.nan_to_num(answers.heavy_atoms)
    unusual = np.abs(sizes - np.median(sizes))
    from_best = np.lexsort((unusual, -goodness))
    best = from_best[goodness[from_best] > UNREAD][: min(number, (len(sizes) + 1) // 2)]
    from_worst = [row for row in np.lexsort((unusual, goodness)) if row not in best]
    read = [row for row in from_worst if goodness[row] > UNREAD]
    unread = [row for row in from_worst if goodness[row] == UNREAD]
    # One answer that cannot be read shows as much as three: others are shown where there are any.
    worst = [*unread[:1], *read, *unread[1:]][:number]
    return [
        Case(f"{kind} {rank}", verdicts[row], answers.rows[row])
        for kind, chosen in (("worst", worst), ("best", best))
        for rank, row in enumerate(chosen, start=1)
    ]


def _goodness(answers: Answers) -> tuple[np.ndarray, list[str]]:
    """How good each answer is, the more the better, and the same in words."""
    if answers.task in MOLECULE_TASKS:
        similarity, exact = answers.similarity, answers.exact_match
        verdicts = [
            "no molecule" if np.isnan(s) else "exact match" if e else f"similarity {s:.2f}"
            for s, e in zip(similarity, exact, strict=True)
        ]
        # An exact match is better than another molecule with the same fingerprint.
        return np.where(np.isnan(similarity), UNREAD, similarity + exact), verdicts
    if answers.task == "property_prediction":
        verdicts = [
            "no number" if np.isnan(error) else f"off by {error:.4g}" for error in answers.errors
        ]
        return np.where(np.isnan(answers.errors), UNREAD, -answers.errors), verdicts
    if answers.task == "property_classification":
        right = np.where(answers.labels == 1, answers.probabilities, 1 - answers.probabilities)
        verdicts = ["no probability" if np.isnan(p) else f"P(right answer) {p:.2f}" for p in right]
        return np.where(np.isnan(right), UNREAD, right), verdicts
    return answers.overlap, [f"METEOR {score:.2f}" for score in answers.overlap]


def save_cases(answers: Answers, cases: Sequence[Case], path: Path) -> None:
    """Write a PNG with a line for each case.

    Answers that are molecules are drawn beside the truth. Otherwise the molecule of the question
    is drawn, with answer and truth below it where they are short.
    """
    if answers.task in MOLECULE_TASKS:
        _draw_molecule_cases(answers, cases, path)
    else:
        _draw_value_cases(answers, cases, path)


def _draw_molecule_cases(answers: Answers, cases: Sequence[Case], path: Path) -> None:
    figure = new_figure(12.0, 2.9 * len(cases))
    panels = figure.subplots(len(cases), 3, squeeze=False)
    for line, case in zip(panels, cases, strict=True):
        row = case.row
        for axes, title, text, notation in (
            (line[0], f"{case.name}: {case.verdict}\nmolecule", row["molecule"], "smiles"),
            (line[1], "\nanswer", row["text"], answers.notation),
            (line[2], "\ntruth", row["reference"], answers.notation),
        ):
            draw_molecule(axes, text, notation)
            axes.set_title(title, fontsize=10, loc="left")
    save(figure, path)


def _draw_value_cases(answers: Answers, cases: Sequence[Case], path: Path) -> None:
    columns = min(CASES, len(cases))
    lines = -(-len(cases) // columns)
    figure = new_figure(4.0 * columns, 3.15 * lines)
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes, case in zip(panels, cases, strict=False):
        row = case.row
        draw_molecule(axes, row["molecule"], "smiles")
        asked = f"{row['property']}, " if row["property"] else ""
        axes.set_title(f"{case.name}: {asked}{case.verdict}", fontsize=10, loc="left")
        if answers.task in CAPTION_TASKS:
            continue
        unit = answers.units.get(row["property"], "")
        answer = textwrap.shorten(row["text"], 60, placeholder=" …") or "(empty)"
        if not row["finished"]:
            answer += " (cut off)"
        # An answer may hold dollar signs, which are no formula.
        axes.set_xlabel(
            f"answer: {answer}\ntruth: {row['reference']} {unit}".rstrip(),
            fontsize=9,
            parse_math=False,
        )
    for axes in panels[len(cases) :]:
        axes.remove()
    save(figure, path)


def draw_molecule(axes: Axes, text: str | None, notation: str) -> None:
    """Draw a molecule with its spelling below; what is no molecule is shown as text.

    Args:
        axes: matplotlib axes to draw on; its frame and ticks are taken away.
        text: a molecule, or what was written in place of one; None for no molecule.
        notation: how it is spelled, `smiles` or `selfies`.
    """
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_color("0.85")
    molecule = _read(text, notation)
    if molecule is None:
        axes.set_xlim(0, PICTURE[0])
        axes.set_ylim(PICTURE[1], 0)
        axes.set_aspect("equal")
        shown = "(no molecule)" if text is None else text.strip() or "(empty)"
        shown = textwrap.shorten(" ".join(shown.split()), 240, placeholder=" …") or shown[:240]
        axes.text(
            PICTURE[0] / 2,
            PICTURE[1] / 2,
            "not a molecule:\n\n" + _fold(shown, 38, 7) if text is not None else shown,
            horizontalalignment="center",
            verticalalignment="center",
            fontsize=9,
            color="tab:red" if text is not None else "0.5",
            parse_math=False,
        )
        return
    axes.imshow(_picture(molecule))
    axes.set_xlabel(_fold(text.strip(), 52, 2), fontsize=7, family="monospace", parse_math=False)


def _fold(text: str, width: int, lines: int) -> str:
    """Fold at any character, as SMILES have no blanks, and cut what is too long."""
    if len(text) > width * lines:
        text = text[: width * lines - 1] + "…"
    return "\n".join(text[start : start + width] for start in range(0, len(text), width))


def _read(text: str | None, notation: str):
    if text is None:
        return None
    try:
        return parse_molecule(text, notation)
    except MoleculeError:
        return None


def _picture(molecule: Chem.Mol) -> np.ndarray:
    """RDKit's drawing of a molecule, [height, width, 4]."""
    drawer = rdMolDraw2D.MolDraw2DCairo(*PICTURE)
    # Small molecules are not blown up, so that all drawings have about one scale.
    drawer.drawOptions().fixedBondLength = 30
    with rdBase.BlockLogs():
        rdMolDraw2D.PrepareAndDrawMolecule(drawer, molecule)
    drawer.FinishDrawing()
    return imread(io.BytesIO(drawer.GetDrawingText()))
