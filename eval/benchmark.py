# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Score a model on molecules that it has not seen.

    python -m eval.benchmark --model DIR [--controls no_molecule,shuffled_molecule,base_model]
    accelerate launch -m eval.benchmark --model DIR --data PREPARED --split test

Each answer is written as it comes; a run that was stopped goes on where it was when it is started
again, on one process or several. At the end the output folder holds `predictions.jsonl` and
`results.json`, which `python -m eval.report` turns into a page.
"""

import argparse
import hashlib
import json
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from rich.console import Console
from transformers import PreTrainedModel

from eval.asking import ask
from eval.bootstrap import LEVEL, RESAMPLES
from eval.generation import load_model, load_processor, method_of
from eval.predictions import PredictionFolder, replace_file
from eval.question_arguments import add_numbers_flag, parse_questions, question_parser
from eval.questions import (
    CONTROLS,
    answer_budgets,
    fingerprint,
    from_prepared,
    load_data_of,
    make_questions,
    select_rows,
)
from eval.scores import print_scores, score_all
from modeling_mora.base_models_mora import short_name
from training.data.prepared import load_prepared

SCHEMA = 1
PACKAGES = ("torch", "transformers", "peft", "datasets", "evaluate", "rdkit", "scikit-learn")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = question_parser(
        "eval.benchmark", "Score a model on molecules that it has not seen.", batch_size=32
    )
    parser.add_argument("--policy", choices=("strict", "published"), default="strict")
    parser.add_argument(
        "--tokenizer", default="words", help="for captions: words, a WordPiece vocabulary, a Hub id"
    )
    add_numbers_flag(parser)
    parser.add_argument(
        "--max_new_tokens",
        type=int,
        help="longest answer (default: the longest training answer of the task and a margin)",
    )
    return parse_questions(parser, arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns its exit code, 2 when it cannot start."""
    started = time.monotonic()
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    args = parse_arguments(arguments)
    state = PartialState(cpu=not torch.accelerator.is_available())
    try:
        data = from_prepared(load_prepared(args.data)) if args.data else load_data_of(args.model)
        rows = select_rows(data, args.split, args.task, args.max_examples)
        processor = load_processor(args.model)
        max_new_tokens = answer_budgets(data, rows, processor, args.max_new_tokens)
        model = load_model(args.model, args.dtype)
        described = describe_model(args.model, model)
        run = {
            **described,
            "data": data.name,
            "split": args.split,
            "dataset_sha256": fingerprint(rows),
            "max_new_tokens": max_new_tokens,
            # Rounding differs a little with the rows that share a batch.
            "batch_size": args.batch_size,
            "dtype": args.dtype,
            "numbers": args.numbers,
            "shuffle_seed": args.seed,
        }
        predictions = PredictionFolder(args.output_dir, run, state.process_index)
        # What an earlier run asked besides is kept and scored too.
        kept = {control for control, _ in predictions.answered}
        controls = [None, *(name for name in CONTROLS if name in kept | set(args.controls))]
        questions = [
            question
            for name in controls
            for question in make_questions(rows, name, args.seed, data.task)
        ]
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    reused = len(predictions.answered)
    ask(
        questions,
        predictions,
        model,
        processor,
        max_new_tokens,
        args.batch_size,
        state,
        args.numbers,
    )
    if not state.is_main_process:
        return 0

    predictions.finish(controls)
    records = [predictions.answered[question["control"], question["row"]] for question in questions]
    entries = score_all(
        records,
        data.splits.get("train", ()),
        data.task,
        policy=args.policy,
        tokenizer=args.tokenizer,
        seed=args.seed,
    )
    print_scores(entries, args.policy, Console())
    results = {
        "schema": SCHEMA,
        "model": args.model,
        **described,
        "data": {
            "name": shown_path(data.name),
            "split": args.split,
            "dataset_sha256": run["dataset_sha256"],
            "rows_in_split": len(data.splits[args.split]),
            "rows_scored": len(rows),
        },
        "policy": args.policy,
        "decoding": {
            "strategy": "greedy",
            "numbers": args.numbers,
            "max_new_tokens": max_new_tokens,
            "batch_size": args.batch_size,
            "dtype": args.dtype,
        },
        "seeds": {"split": data.split_seed, "bootstrap": args.seed, "shuffle": args.seed},
        "bootstrap": {"resamples": RESAMPLES, "level": LEVEL},
        "scores": entries,
        **describe_environment(),
        "processes": state.num_processes,
        "command": shlex.join(["python", "-m", "eval.benchmark", *arguments]),
        "finished_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "wall_time_s": round(time.monotonic() - started, 1),
        "answers_reused": reused,
    }
    replace_file(args.output_dir / "results.json", json.dumps(results, indent=2) + "\n")
    print(f"Wrote predictions.jsonl and results.json to {args.output_dir}")
    return 0


def describe_model(name_or_path: str, model: PreTrainedModel) -> dict[str, str | None]:
    """Say whose answers these are, so that those of two models are never mixed."""
    return {
        "method": method_of(name_or_path),
        "revision": getattr(model.config, "_commit_hash", None),
        "base_model": short_name(model.config.base_model_name_or_path),
        "base_revision": model.config.base_revision,
        "base_fingerprint": model.config.base_fingerprint,
        "adapter_sha256": adapter_fingerprint(model),
    }


def shown_path(name: str) -> str:
    """A folder inside the current one as its path from there, not all of this machine's."""
    path = Path(name)
    is_inside = path.is_absolute() and path.is_relative_to(Path.cwd())
    return str(path.relative_to(Path.cwd())) if is_inside else name


def adapter_fingerprint(model: PreTrainedModel) -> str:
    """SHA-256 over all weights that are not the base model's."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        # LoRA lies inside the language model of a graph prefix.
        if not name.startswith("language_model.") or ".lora_" in name:
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def describe_environment() -> dict[str, Any]:
    """Versions and device, for the result file."""
    return {
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


if __name__ == "__main__":
    sys.exit(main())
