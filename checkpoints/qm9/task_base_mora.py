# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""What all tasks share: how molecules are read, spelled and hidden in a question."""

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from .molecules_mora import canonical_smiles, parse_molecule, to_selfies

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


__all__ = ["Task"]
