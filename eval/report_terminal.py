# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The tables of a report in the terminal."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from eval.metric_names import heading
from eval.published_results import Entry
from eval.report_tables import Row, Section, section_rows, table_columns

DIFFERS = "not comparable in"
WIDEST_NAME, NARROWEST_NAME = 34, 12
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
        while count > 1 and _width(make_table(title, rows, rest[:count])) > console.width:
            count -= 1
        table = make_table(title, rows, rest[:count])
        too_wide = _width(table) - console.width
        if too_wide > 0:  # rich would shrink all columns, numbers too
            width = max(NARROWEST_NAME, table.columns[0].width - too_wide)
            table = make_table(title, rows, rest[:count], width)
        tables.append(table)
        rest = rest[count:]
        title = ""
    return tables


def _width(table: Table) -> int:
    """How wide a table is: its columns, a blank behind each, and what stands between them."""
    return sum(column.width + 1 for column in table.columns) + len(table.columns) + 1


def make_table(
    title: str, rows: Sequence[Row], columns: Sequence[str], name_width: int = WIDEST_NAME
) -> Table:
    """A table of some columns of a section.

    All columns have a fixed width: left to itself, rich breaks numbers to make a table fit.

    Args:
        title: above the table; empty for none.
        rows: its lines.
        columns: names of scores, and `DIFFERS`.
        name_width: at which the models' names are folded.
    """
    table = Table(
        title=Text(title, style="bold") if title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    names = [("  ↳ " if row.kind == "control" else "") + row.name for row in rows]
    # Title, cells, where they stand, and the width at which names are folded.
    contents = [
        ("model", names, "left", name_width),
        ("method", [row.method for row in rows], "left", 20),
        ("property", [row.property for row in rows], "left", 20),
        ("n", [row.n for row in rows], "right", 20),
    ]
    for column in columns:
        if column == DIFFERS:
            contents.append((DIFFERS, [", ".join(row.differs) for row in rows], "left", 40))
        else:
            cells = [row.cells.get(column, "–") for row in rows]
            contents.append((heading(column), cells, "right", 40))
    # No row of a section need have a method or a property.
    contents = [content for content in contents if any(content[1])]
    for name, cells, justify, at_most in contents:
        parts = [*name.split(), *(line for cell in cells for line in cell.split("\n"))]
        width = min(max(map(len, parts)), at_most)
        table.add_column(name, justify=justify, width=width, overflow="fold")
    for row, *cells in zip(rows, *(content[1] for content in contents), strict=True):
        # Text, because brackets are no markup here.
        table.add_row(*map(Text, cells), style=_STYLES[row.kind])
    return table
