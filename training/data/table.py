# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Your own table (CSV, TSV, JSON Lines or Parquet, local or on the Hub) for any task.

The columns are named in Python or in YAML:

    data: logd.csv
    task: property_prediction
    molecule: SMILES
    answer: logD
    id: compound
    properties:
      logd: {description: logD at pH 7.4, decimals: 2}
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from modeling_mora.molecules_mora import MOLECULE_FORMATS
from modeling_mora.tasks_mora import (
    Property,
    PropertyClassification,
    PropertyPrediction,
    Task,
    get_task,
)

from .files import ROW, Paths, check_columns, nearest, open_tables
from .source import RawExample, RowError, Source, cell, needed


def load_table(
    data: Paths | Mapping[str, Paths],
    task: str,
    *,
    molecule: str,
    answer: str,
    id: str | None = None,
    option_columns: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
    properties: Mapping[str, Mapping[str, Any]] | None = None,
    labels: Mapping[str, str] | None = None,
    molecule_format: str = "auto",
    name: str = "table",
    streaming: bool = False,
    **files: Any,
) -> Source:
    """Rows of any table, one example each.

    Args:
        data: where the rows are, see `open_tables`.
        task: a key of `TASKS`.
        molecule: the column with what the question is about; for reagent_prediction it holds
            `reactants>>product`.
        answer: the column with the answer: a number in the unit of its property, 1 or 0 for a
            label, molecules joined by dots, or text.
        id: the column with a name for each row; without it, its split and position.
        option_columns: columns of the other arguments of the task's question, such as
            `{"question": "asked"}`, `{"property": "endpoint"}` or `{"reagents": "solvents"}`.
        options: such arguments that are the same for all rows, such as `{"label": "toxic"}`. A
            property or label need not be given if just one is defined.
        properties: of property_prediction, `{name: {"description": …, "unit": …, "decimals": …}}`
            as in `Property`; without them, those of QM9.
        labels: of property_classification, the end of the question by label, as in
            `{"toxic": "kill fish"}`.
        molecule_format: how molecules are written, see `parse_molecule`.
        name: of the source.
        streaming: see `open_tables`.
        files: other arguments of `open_tables`.

    Raises:
        ValueError: an unknown task, column, option, property or label; the message says which
            there are.
        FileNotFoundError: there is no such file or data set.
    """
    if molecule_format not in MOLECULE_FORMATS:
        raise ValueError(
            f"molecule_format={molecule_format!r}: use one of {', '.join(MOLECULE_FORMATS)}."
        )
    option_columns, options = dict(option_columns or {}), dict(options or {})
    settings = {"properties": properties, "labels": labels}
    settings = {key: dict(value) for key, value in settings.items() if value is not None}
    chosen = _task(task, settings)
    optional = _check_options(chosen, task, option_columns, options)
    splits = open_tables(data, streaming=streaming, **files)
    check_columns(splits, [molecule, answer, *([id] if id else []), *option_columns.values()])
    read = partial(
        read_row,
        molecule=molecule,
        answer=answer,
        identity=id or ROW,
        option_columns=option_columns,
        options=options,
        optional=optional,
        known=_defined(chosen),
    )
    return Source(name, task, splits, read, settings, molecule_format)


def load_table_from_yaml(path: str | Path, **changes: Any) -> Source:
    """Read the arguments of `load_table` from a YAML file.

    Args:
        path: the file; `data` in it is relative to the current folder.
        changes: arguments that replace those of the file.

    Raises:
        ValueError: it is no mapping, or an argument is missing or unknown, as in `load_table`.
    """
    settings = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds {type(settings).__name__}: write `data: …`, `task: …`.")
    settings |= changes
    known = {
        **inspect.signature(load_table).parameters,
        **inspect.signature(open_tables).parameters,
    }
    known.pop("files")
    for key in settings:
        if key not in known:
            raise ValueError(f"{path}: unknown key {key!r}{nearest(key, known)}")
    missing = [key for key in ("data", "task", "molecule", "answer") if key not in settings]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}.")
    return load_table(**settings)


def read_row(
    row: Mapping[str, Any],
    molecule: str,
    answer: str,
    identity: str,
    option_columns: Mapping[str, str],
    options: Mapping[str, Any],
    optional: Sequence[str],
    known: Mapping[str, Sequence[str]],
) -> list[RawExample]:
    """The example of one row; the first arguments name columns, see `load_table`.

    Args:
        row: as in the table.
        molecule: column.
        answer: column.
        identity: column.
        option_columns: columns of options.
        options: constant options.
        optional: options that a row may leave empty.
        known: the values that an option can have, where these are limited.

    Raises:
        RowError: a cell is empty, or names a property or label that is not defined.
    """
    name = str(needed(row, identity))
    found = dict(options)
    try:
        for option, column in option_columns.items():
            value = cell(row, column) if option in optional else needed(row, column)
            if value is None:
                continue
            if value not in known.get(option, (value,)):
                raise RowError(column, value, f"is not among {', '.join(known[option])}")
            found[option] = value
        cells = needed(row, molecule), needed(row, answer)
    except RowError as error:
        raise RowError(error.column, error.value, error.reason, name) from None
    return [RawExample(name, *cells, found, (molecule, answer))]


def _task(name: str, settings: Mapping[str, Any]) -> Task:
    known = inspect.signature(type(get_task(name))).parameters
    for key, value in settings.items():
        if key not in known:
            raise ValueError(f"Task {name!r} has no {key}: leave them out or choose another task.")
        if not value:
            raise ValueError(f"{key} are empty: define at least one.")
    for key, value in settings.get("properties", {}).items():
        unknown = set(value) - {entry.name for entry in fields(Property)}
        if unknown or "description" not in value:
            raise ValueError(f"Property {key!r} has {value}: give description, unit, decimals.")
    return get_task(name, **settings)


def _defined(task: Task) -> dict[str, tuple[str, ...]]:
    """The values that an option of the task's question can have, where these are limited."""
    defined = {}
    if isinstance(task, PropertyPrediction):
        defined["property"] = tuple(task.properties)
    if isinstance(task, PropertyClassification):
        defined["label"] = tuple(task.labels)
    return defined


def _check_options(
    task: Task, name: str, columns: Mapping[str, str], constants: dict[str, Any]
) -> tuple[str, ...]:
    """Check options against the task's question; returns those that may be empty.

    A property or label that nobody names is added to the constants if only one is defined.
    """
    parameters = dict(inspect.signature(task.question).parameters)
    del parameters["molecule"], parameters["phrasing"]
    defined = _defined(task)
    for option in [*columns, *constants]:
        if option not in parameters:
            has = f"has {', '.join(parameters)}" if parameters else "has none"
            raise ValueError(f"The question of task {name!r} takes no {option!r}: it {has}.")
        if option in columns and option in constants:
            raise ValueError(f"{option!r} is given as a column and as a constant: choose one.")
    for option, parameter in parameters.items():
        known = defined.get(option, ())
        if option in defined and not known:
            raise ValueError(f"Task {name!r} needs {option}s: define at least one.")
        required = parameter.default is inspect.Parameter.empty
        if required and option not in columns and option not in constants:
            if len(known) != 1:
                raise ValueError(
                    f"Task {name!r} needs {option!r}: name its column in option_columns or its "
                    "value in options."
                )
            constants[option] = known[0]
        if known and option in constants and constants[option] not in known:
            raise ValueError(
                f"{option} {constants[option]!r} is not defined: there are {', '.join(known)}."
            )
    return tuple(key for key, p in parameters.items() if p.default is not inspect.Parameter.empty)
