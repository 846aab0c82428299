# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""What the assistant can be asked: how a question is put, and how its answer is written and read.

Training, evaluation and inference take their wording from here, so that they cannot drift apart.
A task is a class with `question`, `graph`, `answer` and `parse`, and an entry in `TASKS`. What a
checkpoint was trained on (properties, labels, notation) is stored with its processor.
"""

import math
import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from .molecules_mora import (
    MoleculeError,
    canonical_smiles,
    parse_molecule,
    read_smiles,
    to_selfies,
)
from .numbers_mora import read_number

NOTATIONS = ("smiles", "selfies")


@dataclass(frozen=True)
class Task:
    """What all tasks share.

    Attributes:
        prompts: several ways to ask, chosen by `phrasing`.
        metrics: names of the metric modules that judge the answers.
        notation: how molecules are spelled in questions and answers, `"smiles"` or `"selfies"`.
    """

    # What a question says in place of the string of its molecule.
    hidden: ClassVar[str] = "this molecule"

    prompts: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    notation: str = "smiles"

    def __post_init__(self):
        if self.notation not in NOTATIONS:
            raise ValueError(f"notation={self.notation!r}: use one of {', '.join(NOTATIONS)}.")

    def read(self, molecule: Any, molecule_format: str = "auto", row: int | None = None) -> str:
        """Canonical SMILES of what a question is about, as `question` and `graph` take it.

        Args:
            molecule: what `parse_molecule` reads.
            molecule_format: how a string is read, see `parse_molecule`.
            row: its position in the caller's list, for the error message.

        Raises:
            MoleculeError: it cannot be read.
        """
        return canonical_smiles(parse_molecule(molecule, molecule_format, row))

    def graph(self, molecule: str) -> str:
        """SMILES of what becomes the graph of a question about `molecule`."""
        return molecule

    def answer(self, value: Any, name: str | None = None) -> str:
        """Write an answer as the assistant shall.

        Args:
            value: what stands in the data.
            name: the property or label that was asked for, where the task has several.

        Raises:
            ValueError: the value cannot be an answer.
        """
        text = str(value).strip()
        if not text:
            raise ValueError("the answer is empty: drop the row")
        return text

    def parse(self, text: str, name: str | None = None) -> Any:
        """Read an answer; None for one that cannot be read, and never a guess.

        Args:
            text: what the assistant wrote.
            name: the property or label that was asked for, where the task has several.
        """
        return text.strip() or None

    def spell(self, smiles: str) -> str:
        """Spell molecules, given as SMILES, in the task's notation."""
        return to_selfies(smiles) if self.notation == "selfies" else smiles

    def hide_molecule(self, question: str, molecule: str, row: int | None = None) -> str:
        """The question with words in place of its molecule's string, which only the graph tells.

        The string is replaced wherever it stands as a word of its own, also in what a user has
        asked; another spelling of the molecule there stays, and so do the reagents of a reaction,
        which are no part of the graph.

        Args:
            question: what `question` has made, in any of its wordings.
            molecule: SMILES of the graph, as `graph` gives it and the rows of data hold it.
            row: its position in the caller's list, for the error message.

        Raises:
            ValueError: the question does not spell this molecule.
        """
        spelled = self._spelling(question, molecule)
        if spelled is not None:
            # Beside it may stand marks such as a colon, but no other part of a molecule.
            word = rf"(?<!\S)([(\"']*){re.escape(spelled)}(?=[)\"'.,:;?!]*(?:\s|$))"
            question, count = re.subn(word, rf"\1{self.hidden}", question)
            if count:
                return question
        where = "" if row is None else f"Row {row}: "
        raise ValueError(
            f"{where}the question {question!r} does not spell {molecule!r} in {self.notation}, so "
            "it cannot be hidden: prepare the data again with this version."
        )

    def _spelling(self, question: str, molecule: str) -> str | None:
        """How the question would spell the molecule of a graph."""
        return self.spell(molecule)

    def _prompt(self, phrasing: int, **values: str) -> str:
        if not 0 <= phrasing < len(self.prompts):
            raise ValueError(
                f"Phrasing {phrasing} does not exist: use 0 to {len(self.prompts) - 1}."
            )
        return self.prompts[phrasing].format(**values)


@dataclass(frozen=True)
class MoleculeAnswer(Task):
    """A task whose answer is one molecule or several, joined by dots."""

    metrics: tuple[str, ...] = ("molecule_match", "fingerprint_similarity")

    def answer(self, value: str, name: str | None = None) -> str:
        """Write canonical SMILES in the task's notation."""
        return self.spell(canonical_smiles(parse_molecule(value)))

    def parse(self, text: str, name: str | None = None) -> str | None:
        """Canonical SMILES of an answer, or None if it is no molecule."""
        return read_smiles(text, self.notation)


@dataclass(frozen=True)
class ForwardReactionPrediction(MoleculeAnswer):
    """Which product the reactants give; the graph holds all reactants."""

    hidden: ClassVar[str] = "these molecules"

    prompts: tuple[str, ...] = (
        "Predict the product of these reactants: {reactants}{reagents}",
        "What do these molecules react to? {reactants}{reagents}",
        "{reactants}{reagents} Name the main product.",
    )

    def question(self, molecule: str, reagents: str | None = None, phrasing: int = 0) -> str:
        """Return the text of the user turn.

        Args:
            molecule: SMILES of the reactants, joined by dots.
            reagents: SMILES of reagents, catalysts and solvents, joined by dots.
            phrasing: index into `prompts`.
        """
        others = f" Reagents: {self.spell(reagents)}" if reagents else ""
        return self._prompt(phrasing, reactants=self.spell(molecule), reagents=others)


@dataclass(frozen=True)
class Retrosynthesis(MoleculeAnswer):
    """Which reactants give a product; the graph is the product."""

    prompts: tuple[str, ...] = (
        "Which reactants give this product? {product}",
        "Suggest reactants for the synthesis of {product}",
        "{product} From which molecules can it be made in one step?",
    )

    def question(self, molecule: str, phrasing: int = 0) -> str:
        """Return the text of the user turn.

        Args:
            molecule: SMILES of the product.
            phrasing: index into `prompts`.
        """
        return self._prompt(phrasing, product=self.spell(molecule))


@dataclass(frozen=True)
class ReagentPrediction(MoleculeAnswer):
    """Which reagents a reaction needs; the graph holds reactants and product."""

    hidden: ClassVar[str] = "this reaction"

    prompts: tuple[str, ...] = (
        "Which reagents does this reaction need? {reaction}",
        "Suggest reagents for {reaction}",
        "{reaction} With which reagents, catalysts or solvents?",
    )

    def question(self, molecule: str, phrasing: int = 0) -> str:
        """Return the text of the user turn.

        Args:
            molecule: the reaction as `reactants>>product`, in SMILES.
            phrasing: index into `prompts`.
        """
        reactants, product = self._sides(molecule)
        reaction = f"{self.spell(reactants)}>>{self.spell(product)}"
        return self._prompt(phrasing, reaction=reaction)

    def read(self, molecule: Any, molecule_format: str = "auto", row: int | None = None) -> str:
        """A reaction with both sides as canonical SMILES."""
        sides = self._sides(str(molecule))
        return ">>".join(
            super(ReagentPrediction, self).read(s, molecule_format, row) for s in sides
        )

    def graph(self, molecule: str) -> str:
        """Reactants and product as the components of one graph."""
        return ".".join(self._sides(molecule))

    def _spelling(self, question: str, molecule: str) -> str | None:
        """The reaction in the question, if it has the atoms of the graph.

        The graph no longer tells which side its components are from.
        """
        for word in question.split():
            reactants, arrow, product = word.partition(">>")
            both = read_smiles(f"{reactants}.{product}", self.notation) if arrow else None
            if both is not None and _elements(both) == _elements(molecule):
                return word
        return None

    def _sides(self, reaction: str) -> tuple[str, str]:
        reactants, arrow, product = reaction.partition(">>")
        if not (reactants and arrow and product):
            raise MoleculeError(f"{reaction!r} is no reaction: write it as 'reactants>>product'.")
        return reactants, product


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


def _elements(smiles: str) -> Counter[str]:
    return Counter(atom.GetSymbol() for atom in parse_molecule(smiles, "smiles").GetAtoms())


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
