# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The tables of a report in the terminal."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from eval.metric_names import heading
from eval.published_results import Entry
from eval.report_tables import Row, Section, section_rows, table_columns

DIFFERS = "not comparable in"
_STYLES = {"model": "bold", "control": "", "mean": "bold", "published": "italic"}


def print_section(section: Section, entries: Iterable[Entry], console: Console) -> None:
    """Print a section's table, in as many parts as the terminal's width makes necessary."""
    rows = section_rows(section, entries)
    main, further = table_columns(section, rows)
    columns = main + [DIFFERS] * any(row.differs for row in rows)
    for table in _fitting(section.title, rows, columns, console):
        console.print(table)
    ours = [row for row in rows if row.kind != "published"]
    if further:
        for table in _fitting("Further scores of the same answers", ours, further, console):
            console.print(table)


def _fitting(
    title: str, rows: Sequence[Row], columns: Sequence[str], console: Console
) -> list[Table]:
    """Tables that each fit the console; the model's name begins each of them."""
    tables = []
    rest = list(columns)
    while rest:
        count = len(rest)
        while count > 1 and _width(make_table(title, rows, rest[:count]), console) > console.width:
            count -= 1
        tables.append(make_table(title, rows, rest[:count]))
        rest = rest[count:]
        title = ""
    return tables


def _width(table: Table, console: Console) -> int:
    # Measured without a limit, or rich would say that everything fits.
    return Measurement.get(console, console.options.update(max_width=10_000), table).minimum


def make_table(title: str, rows: Sequence[Row], columns: Sequence[str]) -> Table:
    """A table of some columns of a section.

    Args:
        title: above the table; empty for none.
        rows: its lines.
        columns: names of scores, and `DIFFERS`.
    """
    table = Table(
        title=Text(title, style="bold") if title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    names = [("  ↳ " if row.kind == "control" else "") + row.name for row in rows]
    # Titles may be folded, but neither names nor numbers.
    table.add_column(
        "model", min_width=min(max(map(len, names)), 34), max_width=34, overflow="fold"
    )
    asked = any(row.property for row in rows)
    methods = any(row.method for row in rows)
    if methods:
        table.add_column("method", min_width=max(len(row.method) for row in rows))
    if asked:
        table.add_column("property", min_width=14, max_width=20)
    table.add_column("n", justify="right", min_width=max(len(row.n) for row in rows))
    for column in columns:
        if column == DIFFERS:
            table.add_column(DIFFERS, min_width=len(DIFFERS))
        else:
            cells = [row.cells.get(column, "–") for row in rows]
            width = max(len(line) for cell in cells for line in cell.split("\n"))
            table.add_column(heading(column), justify="right", min_width=width)
    for row, name in zip(rows, names, strict=True):
        cells = [", ".join(row.differs) if c == DIFFERS else row.cells.get(c, "–") for c in columns]
        # Text, because brackets are no markup here.
        texts = [name, *[row.method] * methods, *[row.property] * asked, row.n, *cells]
        table.add_row(*map(Text, texts), style=_STYLES[row.kind])
    return table
