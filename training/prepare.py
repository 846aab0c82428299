# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Prepare data for training: read sources, check every row, split, mix, report, save.

    python -m training.prepare RECIPE_OR_DATA.yaml --output_dir DIR
    python -m training.finetune RECIPE.yaml --prepared DIR

The YAML file is a data section, or a recipe with one under `data:`; see `DataSettings` for its
keys and training/README.md for an example. `DIR` gets the splits, `prepared.json`,
`rejected.jsonl` and `lengths.png`, or, if anything fails, nothing.
"""

import argparse
import dataclasses
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
from datasets import Dataset, DatasetDict, IterableDataset, concatenate_datasets
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer

from modeling_mora import MoleculeFeatureExtractor
from modeling_mora.base_models_mora import resolve_base
from modeling_mora.tasks_mora import get_task
from training.data.build import ROW_NUMBER, build_examples
from training.data.example_report import example_table
from training.data.leakage import Leak, check_leaks, drop_leaks, find_leaks, leak_table
from training.data.lengths import (
    drop_unusable,
    length_table,
    measure,
    save_histograms,
)
from training.data.mixing import mix_sources, source_counts
from training.data.prepared import (
    check_output,
    dataset_fingerprint,
    merge_tasks,
    write_info,
    written_in_one_step,
)
from training.data.rejections import Rejections, TooManyRejectedError, rejection_table
from training.data.settings import SOURCE_KEYS, DataSettings, read_settings
from training.data.source import Source
from training.data.sources import open_source
from training.data.splits import SPLITS, split_examples

REJECTED_FILE = "rejected.jsonl"
HISTOGRAM_FILE = "lengths.png"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `training.prepare` with these command-line arguments (the process's own if None)."""
    parser = argparse.ArgumentParser(
        prog="python -m training.prepare",
        description="Check, split and mix data, and save it for training.finetune --prepared.",
    )
    parser.add_argument("settings", type=Path, help="YAML: a data section, or a recipe with one")
    parser.add_argument(
        "--output_dir", type=Path, help="new folder (default: `prepared` of the recipe)"
    )
    parser.add_argument(
        "--data", help="file, folder or Hub id of the only source, instead of the file's"
    )
    parser.add_argument("--num_proc", type=int, help="processes, instead of the file's")
    parser.add_argument("--max_rejected", type=float, help="share, instead of the file's")
    parser.add_argument("--strict", action="store_true", help="stop at the first rejected row")
    parser.add_argument(
        "--fail-on-leak", action="store_true", help="stop if two splits share something"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace earlier prepared data")
    args = parser.parse_args(arguments)
    try:
        settings, output_dir = read_settings(args.settings)
        for key in ("num_proc", "max_rejected"):
            if getattr(args, key) is not None:
                setattr(settings, key, getattr(args, key))
        settings.strict |= args.strict
        settings.fail_on_leak |= args.fail_on_leak
        if args.data is not None:
            if len(settings.sources) > 1:
                raise ValueError(
                    f"--data is for one source, but there are {len(settings.sources)}."
                )
            settings.sources[0]["data"] = args.data
        if args.output_dir or output_dir:
            prepare(settings, args.output_dir or output_dir, overwrite=args.overwrite)
        else:
            parser.error("--output_dir is missing, and the recipe has no `prepared`.")
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"training.prepare: error: {error}")


def prepare(settings: DataSettings, output_dir: Path, overwrite: bool = False) -> None:
    """Read, check, split, mix, report and save.

    Args:
        settings: what to read and how.
        output_dir: folder that gets the result in one step.
        overwrite: replace earlier prepared data there.

    Raises:
        ValueError: impossible settings, too many rejected rows, a leak, streams, or a folder
            that holds something else. Rejections found until then are in
            `<output_dir>.rejected.jsonl`.
    """
    output_dir = output_dir.resolve()
    check_output(output_dir, overwrite)
    console = Console()
    sources = [_open(entry, settings) for entry in settings.sources]
    tasks = merge_tasks(sources)
    tokenizer = AutoTokenizer.from_pretrained(settings.tokenizer or resolve_base(settings.base))
    tokenizer.chat_template = settings.chat_template or tokenizer.chat_template

    rejected_path = output_dir.with_name(f"{output_dir.name}.{REJECTED_FILE}")
    rejected_path.parent.mkdir(parents=True, exist_ok=True)
    rejected_path.unlink(missing_ok=True)  # of a run that failed
    judges = {name: get_task(name, **_copied(task)) for name, task in tasks.items()}
    built, rejections, lengths = [], [], []
    try:
        for source, entry in zip(sources, settings.sources, strict=True):
            splits, rejected = _build(source, entry, settings, rejected_path)
            built.append(splits)
            rejections.append(rejected)
        if settings.drop_leaks:
            built = drop_leaks(built, judges, rejections)
        for number, rejected in enumerate(rejections):
            built[number], measured = _measure(built[number], settings, tokenizer, rejected)
            lengths.append(measured)
    except TooManyRejectedError as error:
        console.print(rejection_table([error.rejections]))
        raise

    leaks = _report_leaks(console, sources, built, judges)
    mixed = _mix(built, settings)
    _report(console, mixed, lengths, settings, rejections)
    for splits in built:
        _print_example(console, splits, judges, tokenizer, settings)
    if settings.fail_on_leak:
        check_leaks(leaks)
    if "train" not in mixed:
        raise ValueError("No training examples are left: see the rejections and split sizes above.")

    with written_in_one_step(output_dir) as folder:
        mixed.save_to_disk(str(folder))
        save_histograms(
            pd.concat([frame for one in lengths for frame in one.values()]),
            settings.max_length,
            folder / HISTOGRAM_FILE,
        )
        (folder / REJECTED_FILE).touch()
        if rejected_path.exists():
            shutil.copyfile(rejected_path, folder / REJECTED_FILE)
        write_info(
            folder,
            {
                "tasks": tasks,
                "settings": dataclasses.asdict(settings),
                "rows": {split: len(dataset) for split, dataset in mixed.items()},
                "sources": {split: source_counts(dataset) for split, dataset in mixed.items()},
                "rejected": [{"source": one.source, "kinds": one.kinds} for one in rejections],
                "leaks": [dataclasses.asdict(leak) for leak in leaks if leak.shared],
                "fingerprints": {
                    split: dataset_fingerprint(dataset) for split, dataset in mixed.items()
                },
            },
        )
    rejected_path.unlink(missing_ok=True)
    console.print(f"Saved to {output_dir}", soft_wrap=True)


def _open(entry: dict[str, Any], settings: DataSettings) -> Source:
    own = {key: value for key, value in entry.items() if key not in SOURCE_KEYS}
    source = open_source(entry["source"], **own)
    if any(isinstance(rows, IterableDataset) for rows in source.splits.values()):
        raise ValueError(
            f"Source {source.name!r} is a stream, and prepared data is a finished set of files: "
            "open it without streaming. Streams can be trained on from Python with "
            "build_examples and mix_sources."
        )
    if settings.notation is not None:
        task_settings = {**source.task_settings, "notation": settings.notation}
        source = dataclasses.replace(source, task_settings=task_settings)
    return source


def _build(
    source: Source, entry: dict[str, Any], settings: DataSettings, rejected_path: Path
) -> tuple[DatasetDict, Rejections]:
    """Examples by split, and what was rejected."""
    examples, rejections = build_examples(
        source,
        MoleculeFeatureExtractor(max_atoms=settings.max_atoms),
        phrasings=entry.get("phrasings", settings.phrasings),
        num_proc=settings.num_proc,
        strict=settings.strict,
        max_rejected=settings.max_rejected,
        rejected_path=rejected_path,
        # Leaks and those that are too long count too, so that one run shows all.
        check=False,
        row_numbers=True,
    )
    if not rejections.accepted:
        rejections.check()
    split = entry.get("split", settings.split)
    try:
        return split_examples(examples, **split), rejections
    except (TypeError, ValueError) as error:
        rejections.check()  # the likelier reason for sizes that cannot be had
        raise ValueError(f"Source {source.name!r}, split {split}: {error}") from error


def _measure(
    splits: DatasetDict, settings: DataSettings, tokenizer: Any, rejections: Rejections
) -> tuple[DatasetDict, dict[str, pd.DataFrame]]:
    """The examples that are short enough, by split, and the lengths of all."""
    lengths = {
        name: measure(dataset, tokenizer, settings.num_proc) for name, dataset in splits.items()
    }
    kept = {
        name: drop_unusable(dataset, lengths[name], settings.max_length, name, rejections)
        for name, dataset in splits.items()
    }
    rejections.check()
    return DatasetDict(kept).remove_columns(ROW_NUMBER), lengths


def _mix(built: list[DatasetDict], settings: DataSettings) -> DatasetDict:
    weights = [entry.get("weight") for entry in settings.sources]
    if all(weight is None for weight in weights):
        weights = None
    elif None in weights:
        name = settings.sources[weights.index(None)]["source"]
        raise ValueError(f"Source {name!r} has no weight, but others have: give one to each.")
    try:
        return mix_sources(built, weights=weights, **settings.mixing)
    except TypeError as error:
        raise ValueError(f"mixing {settings.mixing}: {error}") from error


def _report_leaks(
    console: Console, sources: list[Source], built: list[DatasetDict], judges: dict[str, Any]
) -> list[Leak]:
    """Print what splits share, for each source and for all; return the latter."""
    if len(sources) > 1:
        for source, splits in zip(sources, built, strict=True):
            leaks = find_leaks(splits, judges)
            console.print(leak_table(f"Leaks: {source.name}, {source.task}", leaks))
    parts = {split: [one[split] for one in built if split in one] for split in SPLITS}
    joined = {split: concatenate_datasets(sets) for split, sets in parts.items() if sets}
    leaks = find_leaks(joined, judges)
    console.print(leak_table("Leaks: all sources", leaks))
    return leaks


def _report(
    console: Console,
    mixed: DatasetDict,
    lengths: list[dict[str, pd.DataFrame]],
    settings: DataSettings,
    rejections: list[Rejections],
) -> None:
    by_split = {}
    for split in mixed:
        frame = pd.concat([one[split] for one in lengths if split in one])
        fits = frame["problem"].isna() & (frame["tokens"] <= settings.max_length)
        by_split[split] = frame[fits]
    console.print(length_table(by_split))
    if len(settings.sources) > 1:
        console.print(_mixture_table(mixed))
    console.print(rejection_table(rejections))


def _print_example(
    console: Console,
    splits: DatasetDict,
    judges: dict[str, Any],
    tokenizer: Any,
    settings: DataSettings,
) -> None:
    """Print the first example of a source, of its training split if that has any."""
    example = next((dataset[0] for dataset in splits.values() if len(dataset)), None)
    if example is None:
        return
    task = judges[example["task"]]
    extractor = MoleculeFeatureExtractor(max_atoms=settings.max_atoms)
    console.print(example_table(example, task, tokenizer, extractor, settings.max_length))


def _mixture_table(mixed: dict[str, Dataset]) -> Table:
    counts = pd.DataFrame({split: source_counts(data) for split, data in mixed.items()})
    table = Table(title="After mixing", title_justify="left")
    table.add_column("source")
    for split in counts.columns:
        table.add_column(split, justify="right")
    for source, row in counts.fillna(0).astype(int).iterrows():
        table.add_row(str(source), *(f"{count:,}" for count in row))
    return table


def _copied(task: dict[str, Any]) -> dict[str, Any]:
    # A task turns the properties it is given into objects, in place.
    return json.loads(json.dumps(task))


if __name__ == "__main__":
    datasets.logging.set_verbosity_error()
    main()
