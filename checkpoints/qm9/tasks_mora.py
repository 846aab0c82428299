# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""What the assistant can be asked: how a question is put, and how its answer is written and read.

Training, evaluation and inference take their wording from here, so that they cannot drift apart.
A task is a class with `question`, `graph`, `answer` and `parse`, and an entry in `TASKS`. What a
checkpoint was trained on (properties, labels, notation) is stored with its processor.
"""

import math
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from .numbers_mora import read_number
from .reaction_tasks_mora import ForwardReactionPrediction, ReagentPrediction, Retrosynthesis
from .task_base_mora import Task


@dataclass(frozen=True)
class Property:
    """A number that can be asked for.

    Attributes:
        description: how it is called in a question.
        unit: the unit of its values, as a question names it; empty for none.
        decimals: digits behind the point in an answer.
    """

    description: str
    unit: str = ""
    decimals: int = 4


QM9_PROPERTIES = {
    "homo": Property("HOMO energy", "hartree"),
    "lumo": Property("LUMO energy", "hartree"),
    "gap": Property("HOMO-LUMO gap", "hartree"),
}


@dataclass(frozen=True)
class PropertyPrediction(Task):
    """A number about one molecule, such as a frontier-orbital energy in hartree.

    Attributes:
        properties: what can be asked for, by name; the prompts are short, because every token
            costs training time.
    """

    prompts: tuple[str, ...] = (
        "{property} of {molecule}{unit}?",
        "What is the {property} of {molecule}{unit}?",
        "{molecule}: {property}{unit}?",
    )
    metrics: tuple[str, ...] = ("property_regression",)
    properties: dict[str, Property] = field(default_factory=lambda: dict(QM9_PROPERTIES))

    def __post_init__(self):
        super().__post_init__()
        # From a processor's file they come as plain dicts, which stay there as they are.
        properties = {
            name: Property(**value) if isinstance(value, dict) else value
            for name, value in self.properties.items()
        }
        object.__setattr__(self, "properties", properties)

    def question(self, molecule: str, property: str, phrasing: int = 0) -> str:
        """Return the text of the user turn.

        Args:
            molecule: its SMILES.
            property: a key of `properties`, such as `"gap"`.
            phrasing: index into `prompts`.

        Raises:
            ValueError: the property or the phrasing is unknown.
        """
        asked = _choose("Property", property, self.properties)
        unit = f" in {asked.unit}" if asked.unit else ""
        return self._prompt(
            phrasing, property=asked.description, molecule=self.spell(molecule), unit=unit
        )

    def answer(self, value: float, name: str | None = None) -> str:
        """Write a value as the assistant shall, `0.2471` for instance.

        Raises:
            ValueError: the value is not a finite number.
        """
        number = _number(value)
        if not math.isfinite(number):
            raise ValueError(f"{value!r} is not a finite number: drop the row.")
        decimals = self._property(name).decimals
        # Adding zero turns the -0.0 of a tiny negative value into 0.0.
        return f"{round(number, decimals) + 0.0:.{decimals}f}"

    def parse(self, text: str, name: str | None = None) -> float | None:
        """Read the one number of an answer; see `read_number`."""
        return read_number(text, self._property(name).unit)

    def _property(self, name: str | None) -> Property:
        """The property of that name; without one, the first, whose form the others share."""
        if name is None:
            return next(iter(self.properties.values()))
        return _choose("Property", name, self.properties)


@dataclass(frozen=True)
class PropertyClassification(Task):
    """A yes-or-no question about one molecule, such as those of MoleculeNet.

    Attributes:
        labels: the end of the question by label, such as `{"BBBP": "cross the blood-brain
            barrier"}`.
    """

    prompts: tuple[str, ...] = (
        "Does {molecule} {label}? Yes or No.",
        "{molecule} Does it {label}? Answer Yes or No.",
    )
    metrics: tuple[str, ...] = ("property_roc_auc",)
    labels: dict[str, str] = field(default_factory=dict)

    def question(self, molecule: str, label: str, phrasing: int = 0) -> str:
        """Return the text of the user turn.

        Args:
            molecule: its SMILES.
            label: a key of `labels`.
            phrasing: index into `prompts`.
        """
        text = _choose("Label", label, self.labels)
        return self._prompt(phrasing, molecule=self.spell(molecule), label=text)

    def answer(self, value: Any, name: str | None = None) -> str:
        """`Yes` or `No` for 1 or 0.

        Raises:
            ValueError: the value is neither.
        """
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if number not in (0.0, 1.0):
            raise ValueError(f"{value!r} is neither 1 nor 0: drop the row.")
        return "Yes" if number else "No"

    def parse(self, text: str, name: str | None = None) -> bool | None:
        """True for an answer that begins with yes, False for no, otherwise None."""
        first = text.strip().split(maxsplit=1)[0].strip(".,:;!*").lower() if text.strip() else ""
        return {"yes": True, "no": False}.get(first)


@dataclass(frozen=True)
class MoleculeCaptioning(Task):
    """A description of a molecule in words."""

    prompts: tuple[str, ...] = (
        "Describe this molecule: {molecule}",
        "What is known about {molecule}?",
        "{molecule} Write a short description of this molecule.",
    )
    metrics: tuple[str, ...] = ("caption_overlap",)

    def question(self, molecule: str, phrasing: int = 0) -> str:
        """Return the text of the user turn.

        Args:
            molecule: its SMILES.
            phrasing: index into `prompts`.
        """
        return self._prompt(phrasing, molecule=self.spell(molecule))


@dataclass(frozen=True)
class MoleculeQA(Task):
    """Any question about a molecule, answered in words."""

    prompts: tuple[str, ...] = ("{question} {molecule}", "{molecule} {question}")
    metrics: tuple[str, ...] = ("caption_overlap",)

    def question(self, molecule: str, question: str, phrasing: int = 0) -> str:
        """Return the text of the user turn.

        Args:
            molecule: its SMILES.
            question: what is asked about it.
            phrasing: index into `prompts`.
        """
        return self._prompt(phrasing, molecule=self.spell(molecule), question=question.strip())


TASKS = {
    "forward_reaction_prediction": ForwardReactionPrediction,
    "retrosynthesis": Retrosynthesis,
    "reagent_prediction": ReagentPrediction,
    "property_prediction": PropertyPrediction,
    "property_classification": PropertyClassification,
    "molecule_captioning": MoleculeCaptioning,
    "molecule_qa": MoleculeQA,
}


def get_task(name: str, **settings: Any) -> Task:
    """Return the task of that name.

    Args:
        name: a key of `TASKS`.
        settings: what differs from its defaults, such as `notation` or `properties`.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    return _choose("Task", name, TASKS)(**settings)


def task_settings(task: Task) -> dict[str, Any]:
    """The `settings` that make the same task again, for a processor's file."""
    default = asdict(type(task)())
    return {key: value for key, value in asdict(task).items() if value != default[key]}


def _number(value: Any) -> float:
    """A value of the data as a number; what is nearly one is never guessed at."""
    text = str(value).strip()
    try:
        # Python would read 1_2 as twelve.
        if "_" in text:
            raise ValueError
        return float(value)
    except ValueError:
        pass
    if text[:1] in ("<", ">", "≤", "≥", "~", "≈"):
        advice = "it is a bound or an estimate. Write a value or drop the row."
    elif re.fullmatch(r"[-+]?\d+,\d+", text):
        advice = "write the decimals behind a point, not a comma."
    elif re.match(r"[-+]?\d", text):
        advice = "write the number alone, without a unit or anything else."
    else:
        advice = "write a number or drop the row."
    raise ValueError(f"{value!r} is not a number: {advice}")


def _choose(kind: str, name: str, known: dict[str, Any]) -> Any:
    if name not in known:
        raise ValueError(f"{kind} {name!r} is unknown: use one of {', '.join(known)}.")
    return known[name]


__all__ = ["TASKS", "Property", "Task", "get_task", "task_settings"]
