# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Sources by name, as settings files call them."""

import difflib
import importlib
import inspect
from typing import Any

from training.data.source import Source

# Where the function is that makes a source; imported when it is asked for.
SOURCES = {
    "qm9": "training.data.qm9:qm9_source",
    "mol_instructions": "training.data.mol_instructions:load_mol_instructions",
    "uspto": "training.data.reactions:load_reactions",
    "chebi20": "training.data.chebi20:load_chebi20",
    "moleculenet": "training.data.moleculenet:load_moleculenet",
    "table": "training.data.table:load_table",
}


def open_source(source: str, **settings: Any) -> Source:
    """Make the source of that name.

    Args:
        source: a key of `SOURCES`.
        settings: arguments of the source's own function.

    Raises:
        ValueError: no such source, or it does not take a setting or lacks one.
    """
    if source not in SOURCES:
        similar = difflib.get_close_matches(str(source), SOURCES, n=1)
        hint = f" Did you mean {similar[0]!r}?" if similar else ""
        raise ValueError(f"Source {source!r} is unknown: use one of {', '.join(SOURCES)}.{hint}")
    module, function = SOURCES[source].split(":")
    make = getattr(importlib.import_module(module), function)
    parameters = inspect.signature(make).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    unknown = [key for key in settings if key not in parameters and not takes_all]
    if unknown:
        raise ValueError(
            f"Source {source!r} has no setting {unknown[0]!r}: it takes {', '.join(parameters)}."
        )
    missing = [
        key
        for key, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        and key not in settings
    ]
    if missing:
        raise ValueError(f"Source {source!r} needs the setting {missing[0]!r}.")
    return make(**settings)
