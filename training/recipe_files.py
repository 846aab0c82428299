# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""A recipe file as keys and values, and as the flags of a command line that say the same."""

import difflib
import json
from pathlib import Path
from typing import Any

import yaml


def recipe_flags(path: Path, known: list[str]) -> list[str]:
    """Turn a YAML recipe into the flags that say the same, so that one parser checks both.

    Args:
        path: the YAML file, one mapping of keys to values.
        known: the keys that may be used.

    Raises:
        ValueError: not a mapping, or an unknown key.
    """
    settings = read_recipe(path)
    settings.pop("data", None)  # for training.prepare
    for key in settings:
        if key not in known:
            similar = difflib.get_close_matches(str(key), known, n=1)
            hint = f" Did you mean {similar[0]!r}?" if similar else ""
            raise ValueError(f"{path}: unknown key {key!r}.{hint}")
    return as_flags(settings)


def as_flags(settings: dict[str, Any]) -> list[str]:
    """The command line that says the same as these keys and values of a recipe."""
    flags = []
    for key, value in settings.items():
        if value is None:
            continue
        if isinstance(value, dict):
            value = json.dumps(value)
        if key == "report_to" and isinstance(value, list):  # the parser takes one value there
            value = ",".join(value)
        values = value if isinstance(value, list) else [value]
        # `--key=value` for a single one, since argparse takes a lone negative value for a flag.
        if len(values) == 1:
            flags.append(f"--{key}={values[0]}")
        else:
            flags.extend([f"--{key}", *map(str, values)])
    return flags


def read_recipe(path: Path) -> dict[str, Any]:
    """The keys and values of a recipe.

    Raises:
        ValueError: it is no mapping.
    """
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(recipe, dict):
        raise ValueError(f"{path}: a recipe is a mapping of keys to values, like `rank: 16`.")
    return recipe
