# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Which plots a section of a report gets, and drawing them into its folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.metric_names import CAPTION_TASKS, MOLECULE_TASKS
from eval.parity_plot import save_parity_plot
from eval.plots.answers import Answers, section_answers
from eval.plots.cases import Case, find_cases, save_cases
from eval.plots.error_by_size import save_error_by_size
from eval.plots.reaction_classes import has_classes, save_reaction_classes
from eval.plots.roc_curves import save_roc_curves
from eval.plots.similarity import save_similarity
from eval.report_tables import Section


@dataclass(frozen=True)
class Plot:
    """One plot of a page.

    Attributes:
        title: its heading.
        file: name of the PNG beside the page.
        cases: the answers that are drawn, whose texts the page writes out.
        folded: whether these texts are hidden until asked for.
    """

    title: str
    file: str
    cases: tuple[Case, ...] = ()
    folded: bool = True


def draw_section(section: Section, number: int, folder: Path) -> list[Plot]:
    """Draw what the task of a section asks for.

    Args:
        section: what is compared with each other.
        number: its position on the page, which the names of the files begin with.
        folder: where the PNGs are written.
    """
    answers = section_answers(section)
    stem = f"{number}_{section.task}"
    plots: list[Plot] = []
    if section.task in MOLECULE_TASKS:
        plots += _molecule_plots(answers, stem, folder)
    elif section.task == "property_prediction":
        plots += _property_plots(answers, stem, folder)
    elif section.task == "property_classification":
        save_roc_curves(answers, folder / f"{stem}_roc.png")
        plots.append(Plot("ROC curves", f"{stem}_roc.png"))
    return plots + _case_plots(answers, stem, folder)


def _molecule_plots(answers: Sequence[Answers], stem: str, folder: Path) -> list[Plot]:
    plots = []
    if has_classes(answers):
        save_reaction_classes(answers, folder / f"{stem}_classes.png")
        plots.append(Plot("Exact match by reaction class", f"{stem}_classes.png"))
    if save_error_by_size(answers, folder / f"{stem}_size.png"):
        plots.append(Plot("Exact match by size of the molecule", f"{stem}_size.png"))
    save_similarity(answers, folder / f"{stem}_similarity.png")
    plots.append(Plot("Similarity of answers to the truth", f"{stem}_similarity.png"))
    return plots


def _property_plots(answers: Sequence[Answers], stem: str, folder: Path) -> list[Plot]:
    plots = []
    for position, one in enumerate(_models(answers), start=1):
        file = f"{stem}_parity_{position}.png"
        parts = {str(property): one.of(property) for property in one.properties}
        units = {str(property): one.units.get(property, "") for property in one.properties}
        values = {name: (part.truths, part.values) for name, part in parts.items()}
        save_parity_plot(values, folder / file, units)
        plots.append(Plot(f"Predicted against true: {one.name}", file))
    if save_error_by_size(answers, folder / f"{stem}_size.png"):
        plots.append(Plot("Error by size of the molecule", f"{stem}_size.png"))
    return plots


def _case_plots(answers: Sequence[Answers], stem: str, folder: Path) -> list[Plot]:
    plots = []
    for position, one in enumerate(_models(answers), start=1):
        cases = find_cases(one)
        file = f"{stem}_cases_{position}.png"
        save_cases(one, cases, folder / file)
        title = f"Worst and best answers: {one.name}"
        plots.append(Plot(title, file, tuple(cases), folded=one.task not in CAPTION_TASKS))
    return plots


def _models(answers: Sequence[Answers]) -> list[Answers]:
    """The models as they are, without their controls."""
    return [one for one in answers if one.control is None]
