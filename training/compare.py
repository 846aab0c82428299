# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Train several methods on the same data, score each, and put them into one table.

    python -m training.compare training/comparisons/qm9_gap_cpu.yaml
    python -m training.compare training/comparisons/qm9_gap_cpu.yaml --parallel 2 --arms mora lora
    python -m training.compare … --arms mora@learning_rate=0.004       # one value of a search
    python -m training.compare … --arms mora new --published mora      # only `new` is trained

`OUTPUT_DIR/NAME/ARM/seed-N` holds a run: its recipe, model, logs and scores. Interrupted? The same
command goes on: what is trained or scored is kept, and a training resumes from its checkpoint. At
the end `eval/results/NAME` holds one result file for each run with its answers beside it,
`README.md` with who is better by how much, and `report` with all tables and plots; with `--arms`
of these alone.
"""

import argparse
import importlib
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from eval.predictions import replace_file
from training.comparison import Comparison, check_settings, read_comparison
from training.comparison_page import write_page
from training.comparison_run import (
    CommandError,
    Run,
    compare_losses,
    console,
    finish,
    plan_run,
    take_folder,
    train,
    was_resumed,
)
from training.loss_curves import compare_curves, draw_learning, read_curve
from training.published_runs import pack_run, read_published

# In `report`: gains of the first arm over the others, and differences of losses, as on the page.
GAINS = "gains.json"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m training.compare")
    parser.add_argument("comparison", type=Path, metavar="COMPARISON.yaml")
    parser.add_argument(
        "--arms",
        nargs="+",
        help="only these, or single variants such as lora@rank=8 (default: all)",
    )
    parser.add_argument(
        "--published",
        nargs="+",
        default=[],
        metavar="ARM",
        help="those of the arms whose runs are taken from the results as they are; seeds that are "
        "not there are trained",
    )
    parser.add_argument("--parallel", type=int, default=1, help="so many runs side by side")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/compare"))
    parser.add_argument("--results_dir", type=Path, default=Path("eval/results"))
    args = parser.parse_args(arguments)
    if args.parallel < 1:
        parser.error(f"--parallel {args.parallel}: must be at least 1")
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a comparison; returns its exit code: 2 when it cannot start, 1 when a run has failed."""
    args = parse_arguments(arguments)
    try:
        check_report()
        comparison = read_comparison(args.comparison)
        arms = list(dict.fromkeys(args.arms or comparison.arms))
        folder = args.output_dir / comparison.name
        results = args.results_dir / comparison.name
        for arm in args.published:
            if arm not in arms:
                raise ValueError(f"--published {arm}: is not one of the arms {', '.join(arms)}.")
        published = {
            arm: read_published(comparison, arm, results, folder) for arm in args.published
        }
        there = {arm: [run for run, _ in pairs] for arm, pairs in published.items()}
        runs = {arm: plan_runs(comparison, arm, there.get(arm, ()), folder) for arm in arms}
        check_each_once([*runs.values(), *there.values()])
        to_train = list(itertools.chain.from_iterable(runs.values()))
        for variant in {run.variant.name: run.variant for run in to_train}.values():
            check_settings(comparison, variant)
        for run in to_train:
            take_folder(run)
    except (OSError, ValueError) as error:
        print(f"training.compare: error: {error}", file=sys.stderr)
        return 2

    first_seed = comparison.seeds[0]
    searched = [
        run
        for arm in arms
        for run in runs[arm]
        if run.seed == first_seed and len(comparison.variants_of(arm)) > 1
    ]
    failed = run_all(train, searched, args.parallel)
    chosen: dict[str, list[Run]] = {}
    for arm in arms:
        candidates = [run for run in runs[arm] if run.seed == first_seed]
        if arm in published:
            chosen[arm] = runs[arm]
        elif not any(run in failed for run in candidates):
            best = choose(candidates)
            chosen[arm] = [run for run in runs[arm] if run.variant == best.variant]
    all_chosen = list(itertools.chain.from_iterable(chosen.values()))
    failed += run_all(lambda run: finish(run, comparison), all_chosen, args.parallel)
    written = {
        arm: published.get(arm, [])
        + [
            (run, write_result(run, runs[arm], comparison, results))
            for run in chosen[arm]
            if run not in failed
        ]
        for arm in chosen
    }
    done = {arm: pairs for arm, pairs in written.items() if pairs}
    if done:
        report(done, arms[0], failed, comparison, results)
    for run in failed:
        print(f"training.compare: error: {run.name} has failed, see its logs in {run.folder}")
    return 1 if failed else 0


def plan_runs(
    comparison: Comparison, arm: str, published: Sequence[Run], folder: Path
) -> list[Run]:
    """The runs of an arm, of all its variants or, without what is published, of that one.

    Raises:
        ValueError: there is no such arm.
    """
    variants = [published[0].variant] if published else comparison.variants_of(arm)
    seeds = [seed for seed in comparison.seeds if seed not in {run.seed for run in published}]
    return [plan_run(comparison, variant, seed, folder) for variant in variants for seed in seeds]


def check_report() -> None:
    """Make sure that the report can be written, before anything is trained.

    Raises:
        OSError: a package is missing, or a library that RDKit draws with.
    """
    try:
        importlib.import_module("eval.report")
    except ImportError as error:
        raise OSError(
            f"the report could not be made: {error}. Packages come with `make setup`; RDKit also "
            "draws with libraries of X, on Debian and Ubuntu: apt install libxrender1 libxext6"
        ) from error


def check_each_once(arms: Iterable[Sequence[Run]]) -> None:
    """Make sure that no two runs have one name, and with it a folder and a result file.

    Raises:
        ValueError: an arm or a variant is asked for twice, or a value is searched twice.
    """
    names = [run.name for runs in arms for run in runs]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"{twice[0]} would be there twice: name each arm and value once.")


def run_all(step: Callable[[Run], None], runs: Sequence[Run], parallel: int) -> list[Run]:
    """Take a step of all runs, so many at a time; those that fail do not stop the others.

    Args:
        step: what is done with each.
        runs: in this order.
        parallel: how many at a time; the cores are shared among them.

    Returns:
        The runs that have failed.
    """
    threads = max(1, (os.cpu_count() or 1) // parallel)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))

    def succeeds(run: Run) -> bool:
        try:
            step(run)
        except CommandError as error:
            console.print(f"{run.name}: {error}", style="red", markup=False)
            return False
        return True

    pool = ThreadPoolExecutor(parallel)
    try:
        futures = [pool.submit(succeeds, run) for run in runs]
        return [run for run, future in zip(runs, futures, strict=True) if not future.result()]
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C, the runs that have not begun


def validation_loss(run: Run) -> float:
    """The last loss on the validation rows.

    Raises:
        ValueError: none was logged.
    """
    return list(read_curve(run.folder, "eval_loss").values())[-1]


def choose(candidates: Sequence[Run]) -> Run:
    """The candidate with the lowest loss on the validation rows, all of which are printed."""
    if len(candidates) == 1:
        return candidates[0]
    losses = {run.name: validation_loss(run) for run in candidates}
    best = min(candidates, key=lambda run: losses[run.name])
    table = Table(title=f"{best.variant.arm}: {best.variant.name}")
    table.add_column("searched", overflow="fold")
    table.add_column("validation loss", no_wrap=True)
    for name, loss in losses.items():
        table.add_row(name, f"{loss:.4f}", style="bold" if name == best.name else None)
    console.print(table)
    return best


def write_result(run: Run, candidates: Iterable[Run], comparison: Comparison, folder: Path) -> dict:
    """Copy a run's results to `folder`, with how it was trained, and its answers; returns them."""
    results = json.loads(run.results.read_text(encoding="utf-8"))
    results["answer_loss"] = json.loads(run.losses.read_text(encoding="utf-8"))["losses"]
    history = run.state["log_history"]
    results["comparison"] = {
        "name": comparison.name,
        "tier": comparison.tier,
        "arm": run.variant.arm,
        "seed": run.seed,
        "recipe": run.recipe,
        "search": {
            other.variant.name: validation_loss(other)
            for other in candidates
            if other.seed == comparison.seeds[0] and other.is_trained
        },
        "steps": run.state["global_step"],
        # Of the last start alone.
        "train_runtime_s": None
        if was_resumed(run)
        else next(e["train_runtime"] for e in history[::-1] if "train_runtime" in e),
        "hardware": describe_hardware(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{run.variant.name}-seed-{run.seed}.json"
    pack_run(run, path.with_suffix(".tar.xz"))
    replace_file(path, json.dumps(results, indent=2) + "\n")
    return results


def describe_hardware() -> str:
    """The accelerator, or processor and number of cores."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    processor = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        processor = names[0] if names else processor
    return f"{os.cpu_count()} cores, {processor}"


def report(
    done: dict[str, list[tuple[Run, dict]]],
    ours: str,
    failed: Sequence[Run],
    comparison: Comparison,
    results: Path,
) -> None:
    """Tables and plots of eval.report, the learning curves, and a page on all of it.

    Args:
        done: by arm, its runs with their results.
        ours: the arm whose gains over the others are found.
        failed: runs that the page names as missing.
        comparison: what was run.
        results: folder that gets the page, and the rest in `report`.
    """
    runs = {arm: [run for run, _ in pairs] for arm, pairs in done.items()}
    all_runs = list(itertools.chain.from_iterable(runs.values()))
    folder = results / "report"
    folder.mkdir(parents=True, exist_ok=True)
    for picture in folder.glob("*.png"):  # an earlier report may have had more of them
        picture.unlink()
    for metric in ("loss", "eval_loss"):
        curves = {run.name: read_curve(run.folder, metric) for run in all_runs}
        named = {name.replace("@", "\n"): curve for name, curve in curves.items()}
        draw_learning(named, metric, f"{comparison.name}: {metric}", folder / f"{metric}.png")
    console.print(compare_curves(curves))
    command = ["eval.report", *(str(run.results) for run in all_runs), "--output_dir", str(folder)]
    command += ["--title", f"{comparison.name}, tier {comparison.tier}"]
    subprocess.run([sys.executable, "-m", *command], check=True)
    others = [arm for arm in done if arm != ours] if ours in done else []
    gains = {other: find_gains(runs[ours], runs[other]) for other in others}
    losses = [
        compare_losses(
            run,
            {other: rival for other in others for rival in runs[other] if rival.seed == run.seed},
        )
        for run in runs.get(ours, ())
    ]
    names = {arm: [f"{run.variant.name}-seed-{run.seed}" for run in runs[arm]] for arm in runs}
    content = {"ours": ours, "runs": names, "gains": gains, "losses": losses}
    replace_file(folder / GAINS, json.dumps(content, indent=2) + "\n")
    arms = {arm: [result for _, result in pairs] for arm, pairs in done.items()}
    missing = [run.name for run in failed]
    page = write_page(comparison.name, arms, gains, losses, results, missing)
    console.print(f"Wrote {page}", soft_wrap=True)


def find_gains(ours: Sequence[Run], theirs: Sequence[Run]) -> list[dict[str, Any]]:
    """What eval.relative_gain finds for an arm over another one; nothing where it cannot."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "eval.relative_gain", "--output_dir", folder]
        command += ["--ours", *(str(run.results) for run in ours)]
        command += ["--theirs", *(str(run.results) for run in theirs)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            console.print(f"{theirs[0].name}: no gain: {done.stderr.strip()}", markup=False)
            return []
        written = (Path(folder) / "relative_gain.json").read_text(encoding="utf-8")
        return json.loads(written)["gains"]


if __name__ == "__main__":
    sys.exit(main())
