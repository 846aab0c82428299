# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs as they were published: the answers beside the results, for arms that come later.

`eval/results/NAME/ARM-seed-N.tar.xz` holds what a comparison reads of a run: its learning curve,
its answers to all rows, and the loss of the right ones. Gains are paired by row, so with it a new
arm is compared without training the others again; anybody can also score the answers anew.
"""

import io
import json
import os
import shlex
import tarfile
from pathlib import Path
from typing import Any

from transformers.trainer import TRAINER_STATE_NAME

from eval.answer_loss import ROWS
from eval.benchmark import parse_arguments
from eval.result_files import PREDICTIONS, RESULTS
from training.comparison import Comparison, full_recipe
from training.comparison_run import BENCHMARK, Run, differing_keys, scoring_flags

KEPT = (TRAINER_STATE_NAME, *(f"{BENCHMARK}/{name}" for name in (RESULTS, PREDICTIONS, ROWS)))
# No arm can have this name.
FOLDER = "_published"
# What may differ from how an arm would be scored now.
NOT_COMPARED = ("model", "output_dir", "controls")


def pack_run(run: Run, path: Path) -> None:
    """Write what a comparison reads of a finished run; the same run gives the same bytes."""
    unfinished = path.with_name(f"{path.name}.tmp")
    with tarfile.open(unfinished, "w:xz", preset=9) as archive:
        for name in KEPT:
            content = (run.folder / name).read_bytes()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    os.replace(unfinished, path)


def read_published(
    comparison: Comparison, arm: str, results: Path, folder: Path
) -> list[tuple[Run, dict[str, Any]]]:
    """The published runs of an arm with their results, in the order of their seeds.

    Args:
        comparison: what they are compared in.
        arm: name of the arm, or of one of its variants.
        results: folder with the results of this comparison.
        folder: of the comparison's runs; the answers are unpacked there.

    Raises:
        ValueError: there are none, results of several variants, no answers beside them, or the
            arm was trained or scored otherwise than the comparison says now.
    """
    found: dict[str, list[Path]] = {}
    for path in results.glob("*-seed-*.json"):
        name = path.stem.rpartition("-seed-")[0]
        if arm in (name, name.partition("@")[0]):
            found.setdefault(name, []).append(path)
    if len(found) != 1:
        there = f"those of {', '.join(sorted(found))}: name one" if found else "none: train it"
        raise ValueError(f"--published {arm}: of its results {results} holds {there}.")
    ((name, paths),) = found.items()
    (variant,) = comparison.variants_of(name)
    runs = []
    for path in paths:
        content = json.loads(path.read_text(encoding="utf-8"))
        seed = content["comparison"]["seed"]
        recipe = content["comparison"]["recipe"]
        run = Run(variant, seed, folder / FOLDER / name / f"seed-{seed}", recipe)
        now = full_recipe(comparison, variant, seed, run.folder)
        _refuse(path, "trained", differing_keys(recipe, now | {"output_dir": recipe["output_dir"]}))
        _refuse(path, "scored", _scored_otherwise(content, run, comparison))
        _unpack(path.with_suffix(".tar.xz"), run.folder)
        runs.append((run, content))
    return sorted(runs, key=lambda pair: pair[0].seed)


def _scored_otherwise(content: dict[str, Any], run: Run, comparison: Comparison) -> list[str]:
    before = vars(parse_arguments(shlex.split(content["command"])[3:]))
    now = vars(parse_arguments(scoring_flags(run, comparison.benchmark)))
    missing = set(now["controls"]) - {score["control"] for score in content["scores"]}
    alike = {key: before[key] for key in NOT_COMPARED}
    return [*differing_keys(before, now | alike), *sorted(missing)]


def _refuse(path: Path, what: str, keys: list[str]) -> None:
    if keys:
        raise ValueError(
            f"{path} was {what} otherwise than the comparison says now ({', '.join(keys)}): train "
            "that arm again, without --published."
        )


def _unpack(path: Path, folder: Path) -> None:
    if not path.exists():
        raise ValueError(f"{path} is missing: without its answers that arm has to be trained.")
    with tarfile.open(path) as archive:
        for name in KEPT:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.extractfile(name).read())
