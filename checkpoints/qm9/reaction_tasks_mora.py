# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Questions about reactions, whose answers are molecules."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar

from .molecules_mora import MoleculeError, canonical_smiles, parse_molecule, read_smiles
from .task_base_mora import Task


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


def _elements(smiles: str) -> Counter[str]:
    return Counter(atom.GetSymbol() for atom in parse_molecule(smiles, "smiles").GetAtoms())


__all__ = [
    "ForwardReactionPrediction",
    "MoleculeAnswer",
    "ReagentPrediction",
    "Retrosynthesis",
]
