# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Reading the number in an answer, without ever guessing."""

import math
import re

_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_OPENING = "([{*_`'\"$~≈"
_CLOSING = ")]}*_`'\"$.,;:!?"
# Words before a number that make it another one, a bound or a difference.
_SIGNS_AND_BOUNDS = (
    *("-", "+", "±", "<", ">", "≤", "≥"),
    *("minus", "negative", "than", "least", "most", "below", "above", "under", "over"),
)
_POWER = re.compile(r"x10.*|e[-+]?[0-9]+", re.IGNORECASE)
_UNITS = re.compile(
    r"m?ev|electron.?volts?|k?cal.*|k?j.*|(m(illi)?)?ha.*|a\.?u|ry.*|cm.*|nm|hz|k|%|[mµun]?m|mol/l"
)


def read_number(text: str, unit: str) -> float | None:
    """Read the one number of an answer, or return None; never guess.

    One number, alone or among words, is read. None stands for: no number, two different numbers,
    something half a number (`0,345`, `0.25.3`, `1/4`, `1.2 x10-3`), a bound or a sign in words
    (`less than 0.3`, `minus 0.3`), a number in another unit (`6.8 eV`), and everything that is
    not finite.

    Args:
        text: the answer.
        unit: the unit that may stand behind the number, such as `hartree`; empty for none.
    """
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
        if before.lower() in _SIGNS_AND_BOUNDS or _is_other_unit(after, unit):
            return None
        if _POWER.fullmatch(after):  # 1.2 x10-3
            return None
        numbers.add(float(word))
    if len(numbers) != 1:
        return None
    number = numbers.pop()
    return number if math.isfinite(number) else None


def _is_other_unit(word: str, unit: str) -> bool:
    word, unit = word.lower(), unit.lower()
    if unit == "hartree" and word in ("ha", "hartrees", "a.u", "au"):
        return False
    return word != unit and _UNITS.fullmatch(word) is not None


__all__ = ["read_number"]
