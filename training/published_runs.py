# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs as they were published: the answers beside the results, for arms that come later.

`eval/results/NAME/ARM-seed-N.tar.xz` holds what a comparison reads of a run: its learning curve,
its answers to all rows, and the loss of the right ones. Gains are paired by row, so with it a new
arm is compared without training the others again.
"""

import io
import json
import lzma
import os
import shlex
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.trainer import TRAINER_STATE_NAME

from eval.answer_loss import ROWS, SUMMARY
from eval.benchmark import parse_arguments
from eval.questions import fingerprint, from_prepared, select_rows
from eval.result_files import PREDICTIONS, RESULTS
from training.comparison import Comparison, full_recipe
from training.comparison_run import BENCHMARK, Run, differing_keys, scoring_flags
from training.data.prepared import load_prepared

KEPT = (
    TRAINER_STATE_NAME,
    *(f"{BENCHMARK}/{name}" for name in (RESULTS, PREDICTIONS, SUMMARY, ROWS)),
)
# No arm can have this name.
FOLDER = "_published"
# What may differ from how an arm would be scored now.
NOT_COMPARED = ("model", "output_dir", "controls")


def pack_run(run: Run, path: Path) -> None:
    """Write what a comparison reads of a finished run; the same files give the same bytes."""
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
        ValueError: there are no results, those of several variants or of a seed that the comparison
            does not have, no answers beside them or others than theirs, or the arm was trained or
            scored otherwise than the comparison says now, or on rows that are others now.
    """
    found: dict[str, list[Path]] = {}
    for path in results.glob("*-seed-*.json"):
        name = path.stem.rpartition("-seed-")[0]
        if arm in (name, name.partition("@")[0]):
            found.setdefault(name, []).append(path)
    if len(found) != 1:
        there = "none: train it"
        if found:
            there = f"those of {', '.join(sorted(found))}: name one in --arms and --published"
        raise ValueError(f"--published {arm}: of its results {results} holds {there}.")
    ((name, paths),) = found.items()
    variants = [one for of_arm in comparison.arms.values() for one in of_arm if one.name == name]
    if not variants:
        raise ValueError(
            f"--published {arm}: {results} holds results of {name}, which the comparison does not "
            "have any more: train that arm again, without --published."
        )
    runs = []
    for path in paths:
        content = json.loads(path.read_text(encoding="utf-8"))
        seed, recipe = (content["comparison"][key] for key in ("seed", "recipe"))
        if seed not in comparison.seeds:
            raise ValueError(f"{path} is of seed {seed}, which the comparison does not have.")
        run = Run(variants[0], seed, folder / FOLDER / name / f"seed-{seed}", recipe)
        now = full_recipe(comparison, variants[0], seed, Path(recipe["output_dir"]))
        _refuse(path, "trained", differing_keys(recipe, now))
        _refuse(path, "scored", _scored_otherwise(content, run, comparison))
        _unpack(path, content, run.folder)
        runs.append((run, content))
    return sorted(runs, key=lambda pair: pair[0].seed)


def _scored_otherwise(content: Mapping[str, Any], run: Run, comparison: Comparison) -> list[str]:
    before = vars(parse_arguments(shlex.split(content["command"])[3:]))
    now = vars(parse_arguments(scoring_flags(run, comparison.benchmark)))
    missing = set(now["controls"]) - {score["control"] for score in content["scores"]}
    alike = {key: before[key] for key in NOT_COMPARED}
    keys = [*differing_keys(before, now | alike), *sorted(missing)]
    prepared = run.recipe.get("prepared")
    if prepared and Path(prepared).exists():
        data = from_prepared(load_prepared(Path(prepared)))
        rows = select_rows(data, now["split"], now["task"], now["max_examples"])
        if fingerprint(rows) != content["data"]["dataset_sha256"]:
            keys.append("rows")
    return keys


def _refuse(path: Path, what: str, keys: list[str]) -> None:
    if keys:
        raise ValueError(
            f"{path} was {what} otherwise than the comparison says now ({', '.join(keys)}): train "
            "that arm again, without --published."
        )


def _unpack(path: Path, content: Mapping[str, Any], folder: Path) -> None:
    """Unpack the answers to the results in `path`."""
    answers = path.with_suffix(".tar.xz")
    if not answers.exists():
        raise ValueError(f"{answers} is missing: without its answers that arm has to be trained.")
    try:
        with tarfile.open(answers) as archive:
            for name in KEPT:
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.extractfile(name).read())
    except (tarfile.TarError, lzma.LZMAError, EOFError, KeyError) as error:
        raise ValueError(f"{answers} is damaged ({error}): get it again.") from error
    scored = json.loads((folder / BENCHMARK / RESULTS).read_text(encoding="utf-8"))
    if any(content.get(key) != value for key, value in scored.items()):
        raise ValueError(f"{answers} holds other answers than those that {path} is about.")
