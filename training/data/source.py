# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""What every source of examples gives: rows as they are in its files, and how to read one.

Reading a row does not check chemistry. `training.data.build` turns what is read into examples, and
what cannot become one into a rejection that says why.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset, IterableDataset


class RowError(ValueError):
    """A row that cannot become an example.

    Attributes:
        column: where the trouble is.
        value: what stands there.
        reason: why it cannot be used.
        id: what the source calls the row, if it can tell.
    """

    def __init__(self, column: str, value: Any, reason: str, id: str | None = None):
        super().__init__(f"column {column!r} holds {value!r}: {reason}")
        self.column = column
        self.value = value
        self.reason = reason
        self.id = id

    def __reduce__(self) -> tuple:
        # Errors cross processes; the default would call this class with the message alone.
        return type(self), (self.column, self.value, self.reason, self.id)


@dataclass(frozen=True)
class RawExample:
    """One question and answer as a row has them.

    Attributes:
        id: what the source calls it; the same in every run.
        molecule: what the question is about, as `Task.read` takes it.
        answer: what `Task.answer` takes.
        options: the other arguments of `Task.question`, such as `property="gap"`.
        columns: the row's columns that `molecule` and `answer` come from, for a rejection.
        group: what the source sorts its rows into, such as the class of a reaction.
    """

    id: str
    molecule: str
    answer: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    columns: tuple[str, str] = ("molecule", "answer")
    group: str | None = None


@dataclass(frozen=True)
class Source:
    """Rows for one task.

    Attributes:
        name: such as `qm9`; it ends up in the column `source`.
        task: key of `TASKS`.
        task_settings: settings of `get_task`.
        splits: rows by split; `{"all": …}` where the source has no official splits.
        read: from a row to its examples, often one; raises [`RowError`]. Without an answer, such as
            a gap in a table of labels, there is no example. A module-level function or a `partial`
            of one, because it crosses processes.
        molecule_format: how molecules are written, see `parse_molecule`.
    """

    name: str
    task: str
    splits: Mapping[str, Dataset | IterableDataset]
    read: Callable[[dict[str, Any]], list[RawExample]]
    task_settings: Mapping[str, Any] = field(default_factory=dict)
    molecule_format: str = "auto"


def cell(row: Mapping[str, Any], column: str) -> Any:
    """What stands in a cell, text without blanks around it; None for a gap or a missing column."""
    value = row.get(column)
    if isinstance(value, str):
        value = value.strip()
    if value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    return value


def needed(row: Mapping[str, Any], column: str) -> Any:
    """What stands in a cell.

    Raises:
        RowError: nothing.
    """
    value = cell(row, column)
    if value is None:
        raise RowError(column, row.get(column), "is empty")
    return value


def needed_text(row: Mapping[str, Any], column: str) -> str:
    """The text in a cell.

    Raises:
        RowError: nothing, or no text.
    """
    value = needed(row, column)
    if not isinstance(value, str):
        raise RowError(column, value, f"is of type {type(value).__name__}, not text")
    return value


def number(value: Any, column: str) -> float:
    """A value as a finite number.

    Raises:
        RowError: it is none.
    """
    try:
        result = float(value)
    except (TypeError, ValueError):
        raise RowError(column, value, "is not a number") from None
    if not math.isfinite(result):
        raise RowError(column, value, "is not a finite number")
    return result
