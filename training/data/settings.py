# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""What a data section of `training.prepare` may say."""

import dataclasses
import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

# What an entry of `sources` may say besides the settings of the source's own function.
SOURCE_KEYS = ("source", "split", "phrasings", "weight")
# What a recipe says once, for training and for its data section.
SHARED_KEYS = ("base", "chat_template", "max_length")


@dataclass
class DataSettings:
    """What a data section may say.

    Attributes:
        sources: one mapping each: `source` (a name from `training.data.sources`), the settings of
            that source, and optionally `split`, `phrasings` and `weight` (for mixing).
        split: arguments of `split_examples` for sources without their own: `method`, `sizes`,
            `seed`, `ignore_stereo`.
        mixing: `temperature`, `stopping` and `seed` of `mix_sources`.
        notation: how molecules are spelled, `smiles` or `selfies`; None leaves it to the sources.
        phrasings: see `build_examples`, for sources without their own.
        base: the LLM whose tokenizer counts, as in a recipe.
        tokenizer: a folder or Hub id, if it is not the base's.
        chat_template: Jinja text of the chat template, for a tokenizer without one.
        max_length: longest example in tokens.
        max_atoms: largest molecule in heavy atoms.
        num_proc: processes.
        max_rejected: largest share of a source's examples that may be rejected.
        strict: stop at the first rejected row.
        fail_on_leak: stop if two splits share a molecule, a reaction or a question with its answer.
        drop_leaks: leave out of training what is in validation or test, and out of validation what
            is in test, as rejected examples; see `drop_leaks`.
    """

    sources: list[dict[str, Any]] = field(default_factory=list)
    split: dict[str, Any] = field(default_factory=dict)
    mixing: dict[str, Any] = field(default_factory=dict)
    notation: str | None = None
    phrasings: str | None = None
    base: str = "smollm2"
    tokenizer: str | None = None
    chat_template: str | None = None
    max_length: int = 256
    max_atoms: int = 256
    num_proc: int = 1
    max_rejected: float = 0.05
    strict: bool = False
    fail_on_leak: bool = False
    drop_leaks: bool = False


def read_settings(path: Path) -> tuple[DataSettings, Path | None]:
    """Read a data section.

    Args:
        path: YAML file; the `SHARED_KEYS` of a recipe hold for its data section too.

    Returns:
        The settings, and the folder that a recipe calls `prepared`, or None.

    Raises:
        ValueError: an unknown key or a value of the wrong kind.
        OSError: the file cannot be read.
    """
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path}: a data section is a mapping of keys to values.")
    section, output_dir = content, None
    if "data" in content:
        shared = {key: content[key] for key in SHARED_KEYS if key in content}
        section, output_dir = {**shared, **(content["data"] or {})}, content.get("prepared")
    defaults = {key.name: key for key in dataclasses.fields(DataSettings)}
    for key, value in section.items():
        if key not in defaults:
            similar = difflib.get_close_matches(str(key), defaults, n=1)
            hint = f" Did you mean {similar[0]!r}?" if similar else ""
            raise ValueError(f"{path}: unknown key {key!r} in the data section.{hint}")
        kind = type(getattr(DataSettings(), key))
        if kind in (bool, dict, list) and not isinstance(value, kind):
            raise ValueError(f"{path}: {key}: {value!r} is no {kind.__name__}.")
        if kind in (int, float) and not _is_number(value, kind):
            raise ValueError(f"{path}: {key}: {value!r} is no {kind.__name__}.")
    settings = DataSettings(**section)
    if not settings.sources:
        raise ValueError(f"{path}: `sources` is missing: name at least one, `- source: qm9`.")
    for number, entry in enumerate(settings.sources, start=1):
        if not isinstance(entry, dict) or "source" not in entry:
            raise ValueError(f"{path}: entry {number} of sources: write `- source: NAME`.")
    for key in ("max_length", "max_atoms", "num_proc"):
        if getattr(settings, key) < 1:
            raise ValueError(f"{path}: {key}: {getattr(settings, key)}: give at least 1.")
    return settings, Path(output_dir) if output_dir else None


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
