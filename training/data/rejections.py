# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""What happened to rows that became no example: a line each in a file, counts, and a limit."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

# A share of fewer examples than this says little about a stream that has just begun.
ENOUGH_TO_JUDGE = 1000


class TooManyRejectedError(ValueError):
    """So many rows were rejected that something about the whole source must be wrong.

    Attributes:
        rejections: what was rejected.
    """

    def __init__(self, message: str, rejections: "Rejections"):
        super().__init__(message)
        self.rejections = rejections


class RejectedRowError(ValueError):
    """The first rejected row of a strict run."""


class Rejections:
    """The rejected rows of one source.

    Args:
        source: name of the source.
        path: JSON-lines file that gets a line for each, with `source, split, id, row, column,
            value, reason`; lines are appended as rejections come. None for no file.
        max_rejected: largest share of examples that may be rejected.

    Attributes:
        accepted: number of examples that were not rejected.
        lost: number of examples that were; a molecule that cannot be read takes all questions
            about it along.
        kinds: number of rejected rows by kind, which is the reason without its details.
    """

    def __init__(self, source: str, path: Path | str | None = None, max_rejected: float = 0.05):
        if not 0 <= max_rejected <= 1:
            raise ValueError(f"max_rejected={max_rejected}: give a share from 0 to 1.")
        self.source = source
        self.path = None if path is None else Path(path)
        self.max_rejected = max_rejected
        self.accepted = 0
        self.lost = 0
        self.kinds: Counter[str] = Counter()
        self._known: set[str] = set()

    def __len__(self) -> int:
        """Number of rejected rows."""
        return self.kinds.total()

    def add(
        self,
        split: str,
        id: str,
        column: str,
        value: Any,
        reason: str,
        row: int | None = None,
        examples: int = 1,
        once: bool = False,
    ) -> None:
        """Take down one rejected row.

        Args:
            split: where the row is.
            id: what the source calls it.
            column: where the trouble is.
            value: what stands there.
            reason: why it cannot be used.
            row: its position, from 1, among the rows that the source reads as one split.
            examples: how many examples it would have given.
            once: leave out what was taken down before, for streams that are read again.
        """
        entry = {
            "source": self.source,
            "split": split,
            "id": id,
            "row": row,
            "column": column,
            "value": value,
            "reason": reason,
        }
        line = json.dumps(entry, ensure_ascii=False, default=str)
        if once:
            if line in self._known:
                return
            self._known.add(line)
        self.lost += examples
        self.kinds[kind_of(column, reason)] += 1
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    def check(self) -> None:
        """Stop if too many were rejected.

        Raises:
            TooManyRejectedError: names the counts by kind and the file.
        """
        total = self.accepted + self.lost
        if self.lost <= self.max_rejected * total:
            return
        kinds = "; ".join(f"{count} × {kind}" for kind, count in self.kinds.most_common(5))
        where = "" if self.path is None else f" Each one is in {self.path}."
        raise TooManyRejectedError(
            f"Source {self.source!r}: {self.lost} of {total} examples were rejected "
            f"({self.lost / total:.1%}), more than max_rejected={self.max_rejected:g}. {kinds}."
            f"{where} Correct the data or the settings of the source, or raise max_rejected.",
            self,
        )

    def check_stream(self) -> None:
        """`check`, once there are enough examples to judge by."""
        if self.accepted + self.lost >= ENOUGH_TO_JUDGE:
            self.check()


def kind_of(column: str, reason: str) -> str:
    """The column and the reason without names, numbers and advice, for counting.

    Args:
        column: where the trouble is.
        reason: such as `Row 3: Molecule 'CC(' is not a valid SMILES: … Correct it or drop the row.`
    """
    text = " ".join(reason.split())
    # A long molecule is cut in a message, before its closing quote.
    text = re.sub(r"'[^']*?(?:'|…)|\"[^\"]*?(?:\"|…)", "…", text)
    text = re.sub(r"^(?:Row \d+: )?(?:Molecule )?… ", "", text)
    # RDKit says the SMILES once more, and where it stopped reading.
    text = re.sub(r" while parsing: [^;]*|; check for mistakes around position \d+", "", text)
    text = re.sub(r"atom # \d+ \w+, \d+, is", "an atom is", text)
    # Not the limit in `max_length=256`.
    text = re.sub(r"(?<![=\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?", "#", text)
    text = re.sub(
        r"[:,.]? *(?:\w+(?: \w+){1,2} or )?drop the row.*$", "", text, flags=re.IGNORECASE
    )
    return f"{column}: {text.strip(' .')[:100]}"


def rejection_table(rejections: Iterable[Rejections]) -> Table:
    """Rejected rows by source and kind, for the screen."""
    table = Table(title="Rejected rows", title_justify="left")
    for column in ("source", "reason"):
        table.add_column(column, overflow="fold")
    table.add_column("rows", justify="right")
    for one in rejections:
        for kind, count in one.kinds.most_common():
            # As text: rich would take the brackets of a SMILES for its own markup.
            table.add_row(one.source, Text(kind), f"{count:,}")
        if not one.kinds:
            table.add_row(one.source, "none", "0")
    return table
