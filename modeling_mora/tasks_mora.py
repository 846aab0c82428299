# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""What the assistant can be asked: how a question is put, and how its answer is written and read.

Training, evaluation and inference take their wording from here, so that they cannot drift apart.
A task is a class with `question`, `answer` and `parse`, and an entry in `TASKS`.
"""

import math
import re
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PropertyPrediction:
    """A frontier-orbital energy of one molecule, in hartree with four decimals.

    Attributes:
        properties: how each property is called in a question.
        prompts: several ways to ask; short, because every token costs training time.
    """

    properties: dict[str, str] = field(
        default_factory=lambda: {
            "homo": "HOMO energy",
            "lumo": "LUMO energy",
            "gap": "HOMO-LUMO gap",
        }
    )
    prompts: tuple[str, ...] = (
        "{property} of {molecule} in hartree?",
        "What is the {property} of {molecule} in hartree?",
        "{molecule}: {property} in hartree?",
    )

    def question(self, molecule: str, property: str, phrasing: int = 0) -> str:
        """Return the text of the user turn.

        Args:
            molecule: the molecule as it shall be spelled in the text, such as its SMILES.
            property: `"homo"`, `"lumo"` or `"gap"`.
            phrasing: index into `prompts`.

        Raises:
            ValueError: the property or the phrasing is unknown.
        """
        if property not in self.properties:
            raise ValueError(
                f"Property {property!r} is unknown: use one of {', '.join(self.properties)}."
            )
        if not 0 <= phrasing < len(self.prompts):
            raise ValueError(
                f"Phrasing {phrasing} does not exist: use 0 to {len(self.prompts) - 1}."
            )
        return self.prompts[phrasing].format(property=self.properties[property], molecule=molecule)

    def answer(self, value: float) -> str:
        """Write an energy in hartree as the assistant shall, `0.2471` for instance.

        Raises:
            ValueError: the value is not a finite number.
        """
        if not math.isfinite(value):
            raise ValueError(f"{value} cannot be an answer: drop the row.")
        # Adding zero turns the -0.0 of a tiny negative value into 0.0.
        return f"{round(value, 4) + 0.0:.4f}"

    def parse(self, text: str) -> float | None:
        """Read an energy in hartree out of an answer, or return None; never guess.

        One number, alone or among words, is read. None stands for: no number, two different
        numbers, something half a number (`0,345`, `0.25.3`, `1/4`), a number in another unit
        (`6.8 eV`), and everything that is not finite.
        """
        return _single_number(text)


TASKS = {"property_prediction": PropertyPrediction()}


def get_task(name: str) -> PropertyPrediction:
    """Return the task of that name.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    if name not in TASKS:
        raise ValueError(f"Task {name!r} is unknown: use one of {', '.join(sorted(TASKS))}.")
    return TASKS[name]


_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_OPENING = "([{*_`'\"$~≈"
_CLOSING = ")]}*_`'\"$.,;:!?"
_OTHER_UNITS = re.compile(r"m?ev|electron.?volts?|k?cal.*|k?j.*|m(illi)?ha.*|ry.*|cm.*|nm|hz|k|%")


def _single_number(text: str) -> float | None:
    """Return the one number of a text of words and hartree; see `PropertyPrediction.parse`."""
    text = text.replace("\N{MINUS SIGN}", "-")
    # Words, split where "gap=0.25" and "gap:0.25" join a name to its number.
    words = [
        word.lstrip(_OPENING).rstrip(_CLOSING)
        for word in re.split(r"[\s=]+|(?<=[A-Za-z]):", text)
        if word
    ]
    numbers = set()
    for position, word in enumerate(words):
        names_something = word[:1].isalpha()  # such as C6H6, which holds digits but is no number
        if names_something or not any(character.isdigit() for character in word):
            continue
        if not _NUMBER.fullmatch(word):
            return None
        before = words[position - 1] if position else ""
        after = words[position + 1] if position + 1 < len(words) else ""
        # A sign apart from its number may be a dash, and a bound is no value.
        if before in ("-", "+", "±", "<", ">", "≤", "≥") or _OTHER_UNITS.fullmatch(after.lower()):
            return None
        numbers.add(float(word))
    if len(numbers) != 1:
        return None
    number = numbers.pop()
    return number if math.isfinite(number) else None
