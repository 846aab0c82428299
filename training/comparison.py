# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""What a comparison file says: a recipe, arms that differ from it, seeds, and how to score.

recipe: training/recipes/qm9_comparison.yaml
tier: cpu
settings: {properties: [homo, lumo, gap]}
seeds: [0]
arms:
  mora: {core_dim: 128, controls: [shuffled_molecule]}
  lora: {method: lora, search: {learning_rate: [5.0e-4, 1.0e-3, 2.0e-3]}}
benchmark: {split: test}
"""

import contextlib
import io
import itertools
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from training.arguments import parse_arguments
from training.recipe_files import as_flags, read_recipe

KEYS = ("recipe", "tier", "settings", "seeds", "arms", "benchmark")
# Keys of an arm that are no keys of a recipe.
OF_ARM = ("search", "controls")
# What each run has of its own.
OF_RUN = ("output_dir", "seed", "resume_from_checkpoint")
BENCHMARK_KEYS = (
    "split",
    "max_examples",
    "batch_size",
    "dtype",
    "task",
    "policy",
    "max_new_tokens",
    "numbers",
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.=-]*")


@dataclass(frozen=True)
class Variant:
    """An arm with one choice of what is searched.

    Attributes:
        arm: name of the arm.
        name: the arm's, and behind `@` what was chosen; also the folder's name.
        settings: keys of a recipe that differ from the comparison's recipe.
        controls: of `eval.benchmark`, asked of this arm.
    """

    arm: str
    name: str
    settings: Mapping[str, Any]
    controls: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """A comparison, as its file says it.

    Attributes:
        name: the file's name without its ending.
        tier: on what hardware it is meant to run, such as `cpu`; stands beside each result.
        recipe: what all arms have in common, the file's own `settings` over those of its recipe.
        seeds: an arm is trained once with each; a search uses the first.
        arms: variants by arm; more than one where something is searched.
        benchmark: flags of `eval.benchmark`.
    """

    name: str
    tier: str
    recipe: Mapping[str, Any]
    seeds: tuple[int, ...]
    arms: Mapping[str, tuple[Variant, ...]]
    benchmark: Mapping[str, Any]

    def variants_of(self, name: str) -> tuple[Variant, ...]:
        """Those of an arm, or the one of that name.

        Raises:
            ValueError: there is neither such an arm nor such a variant.
        """
        if name in self.arms:
            return self.arms[name]
        variants = [one for variants in self.arms.values() for one in variants if one.name == name]
        if not variants:
            raise ValueError(
                f"--arms {name}: use {', '.join(self.arms)}, or a name with what it chooses, such "
                f"as {next(iter(self.arms.values()))[-1].name}."
            )
        return tuple(variants)


def read_comparison(path: Path) -> Comparison:
    """Read a comparison file; the settings of its arms are for `check_settings`.

    Raises:
        OSError: the file or its recipe cannot be read.
        ValueError: an unknown key, or an arm without a name of its own.
    """
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path}: a comparison is a mapping with {', '.join(KEYS)}.")
    _check_keys(f"{path}", content, KEYS, needed=("recipe", "tier", "seeds", "arms"))
    seeds = content["seeds"]
    if (
        not isinstance(seeds, list)
        or not seeds
        or not all(type(seed) is int for seed in seeds)
        or len(set(seeds)) < len(seeds)
    ):
        raise ValueError(f"{path}: seeds={seeds!r}: give a list of different whole numbers.")
    if not isinstance(content["arms"], dict) or not content["arms"]:
        raise ValueError(f"{path}: arms={content['arms']!r}: give a mapping, NAME: {{SETTINGS}}.")
    benchmark = content.get("benchmark") or {}
    _check_keys(f"{path}: benchmark", benchmark, BENCHMARK_KEYS)
    settings = content.get("settings") or {}
    if not isinstance(settings, dict) or not settings.keys().isdisjoint(OF_RUN):
        raise ValueError(
            f"{path}: settings={settings!r}: give a mapping of a recipe's keys to values; "
            f"{', '.join(OF_RUN)} are each run's own."
        )
    return Comparison(
        name=path.stem,
        tier=str(content["tier"]),
        recipe=read_recipe(Path(content["recipe"])) | settings,
        seeds=tuple(seeds),
        arms={
            name: _variants(f"{path}: arms.{name}", str(name), settings or {})
            for name, settings in content["arms"].items()
        },
        benchmark=benchmark,
    )


def check_settings(comparison: Comparison, variant: Variant) -> None:
    """Let the fine-tuning's own parser look at the settings of a variant that is to be trained.

    Raises:
        ValueError: `training.finetune` would refuse a setting, also for want of a file, or nothing
            would tell the loss on the validation rows.
    """
    where = f"{comparison.name}: arms.{variant.name}"
    output = io.StringIO()
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(output),
        ):
            recipe = Path(folder) / f"{comparison.name}.yaml"
            recipe.write_text(yaml.safe_dump(comparison.recipe), encoding="utf-8")
            flags = as_flags(variant.settings)
            *_, training_args = parse_arguments(
                [str(recipe), "--output_dir", "not-made-yet", *flags]
            )
    except SystemExit as error:  # argparse: a value of the wrong type, an unknown key
        raise ValueError(f"{where}: {output.getvalue().strip().splitlines()[-1]}") from error
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if training_args.eval_strategy == "no":
        raise ValueError(
            f"{where}: eval_strategy=no, but arms are chosen and compared by their loss on the "
            "validation rows: give eval_strategy: steps and eval_steps in the recipe."
        )


def full_recipe(comparison: Comparison, variant: Variant, seed: int, folder: Path) -> dict:
    """The recipe of one run, which `training.finetune` takes as it is."""
    own = {"output_dir": str(folder), "seed": seed}
    return {**comparison.recipe, **variant.settings, **own}


def _variants(where: str, arm: str, settings: Mapping[str, Any]) -> tuple[Variant, ...]:
    if not _NAME.fullmatch(arm):
        raise ValueError(f"{where}: the name becomes a folder: use letters, digits, `_.=-`.")
    if not isinstance(settings, dict):
        raise ValueError(f"{where}={settings!r}: give a mapping of a recipe's keys to values.")
    for key in OF_RUN:
        if key in settings:
            raise ValueError(f"{where}.{key}: each run has its own; leave it out.")
    search = settings.get("search") or {}
    if not isinstance(search, dict) or not all(
        isinstance(values, list) and values for values in search.values()
    ):
        raise ValueError(f"{where}.search={search!r}: give KEY: [VALUE, VALUE, ...].")
    common = {key: value for key, value in settings.items() if key not in OF_ARM}
    both = sorted(set(common) & set(search))
    if both:
        raise ValueError(f"{where}: {', '.join(both)} is set and searched: give one of the two.")
    variants = []
    for values in itertools.product(*search.values()):
        chosen = dict(zip(search, values, strict=True))
        name = "@".join([arm, *(f"{key}={value}" for key, value in chosen.items())])
        if "/" in name:
            raise ValueError(
                f"{where}.search: {name!r} becomes a folder, so no value may hold a slash: make an "
                "arm for each."
            )
        controls = tuple(settings.get("controls") or ())
        variants.append(Variant(arm, name, common | chosen, controls))
    return tuple(variants)


def _check_keys(
    where: str, found: Mapping[str, Any], known: tuple[str, ...], needed: tuple[str, ...] = ()
) -> None:
    unknown = [str(key) for key in found if key not in known]
    if unknown:
        raise ValueError(f"{where}: unknown key {unknown[0]!r}; it takes {', '.join(known)}.")
    missing = [key for key in needed if key not in found]
    if missing:
        raise ValueError(f"{where}: {missing[0]!r} is missing.")
