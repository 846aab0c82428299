# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Score a MoRA model on the held-out test split of the data it was trained on.

    python -m eval.benchmark --model DIR [--max_examples N] [--batch_size 32] [--output_dir DIR]

Writes `predictions.jsonl` as answers come, then `results.json` and `parity.png`. A second start
with the same output folder goes on where the first one stopped.
"""

import argparse
import hashlib
import json
import platform
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import torch
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel, ProcessorMixin
from transformers.utils import cached_file

from eval.generation import Answer, answer_budget, iterate_answers, load_model, load_processor
from eval.parity_plot import save_parity_plot
from eval.predictions import PredictionFile
from eval.regression import RegressionScore, mean_baseline, score_regression
from modeling_mora.tasks_mora import get_task
from training.data.qm9 import load_qm9

# Every row counts; an answer that cannot be read lowers the parsed share and is never imputed.
POLICY = "strict"

# The arms that are asked, and whether the adapter is on. Predicting the mean needs no asking.
ADAPTER_ON = {"base": False, "mora": True}

ARM_TITLES = {
    "mean": "predict the mean",
    "base": "base model without adapter",
    "mora": "MoRA",
}

PACKAGES = ("torch", "transformers", "datasets", "rdkit", "scikit-learn")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.benchmark",
        description="Score a MoRA model on the held-out test split of its own training data.",
    )
    parser.add_argument("--model", required=True, help="MoRA checkpoint: a folder or a Hub id")
    parser.add_argument("--max_examples", type=int, help="only the first N test rows")
    parser.add_argument("--batch_size", type=int, default=32, help="rows per batch")
    parser.add_argument(
        "--output_dir",
        type=Path,
        help="where results go (default: MODEL/benchmark, or ./benchmark for a Hub id)",
    )
    args = parser.parse_args(arguments)
    if args.max_examples is not None and args.max_examples < 1:
        parser.error(f"--max_examples {args.max_examples}: ask for at least one row")
    if args.batch_size < 1:
        parser.error(f"--batch_size {args.batch_size}: a batch holds at least one row")
    if args.output_dir is None:
        args.output_dir = (Path(args.model) if Path(args.model).is_dir() else Path()) / "benchmark"
    return args


def read_data_settings(name_or_path: str) -> dict:
    """Read the `data.json` that training wrote beside the model.

    Raises:
        OSError: if the checkpoint holds no `data.json`.
        ValueError: it was trained on prepared data, which this benchmark does not score.
    """
    try:
        path = cached_file(name_or_path, "data.json")
    except OSError as error:
        raise OSError(
            f"{name_or_path!r} holds no data.json, which says what molecules the model has not "
            f"seen: score a folder written by training.finetune ({error})"
        ) from error
    settings = json.loads(Path(path).read_text(encoding="utf-8"))
    if "prepared" in settings:
        raise ValueError(
            f"{name_or_path!r} was trained on prepared data ({settings['prepared']}), but only "
            "models trained on QM9's own recipe can be scored here."
        )
    return settings


def describe_run(
    model: PreTrainedModel, test: Dataset, max_new_tokens: int
) -> dict[str, str | int | None]:
    """Say what the answers depend on, so that answers of two runs are never mixed.

    `max_examples` and the batch size are left out on purpose: an answer does not depend on them.
    """
    return {
        "base_model": model.config.base_model_name_or_path,
        "base_revision": model.config.base_revision,
        "base_fingerprint": model.config.base_fingerprint,
        "adapter_sha256": adapter_fingerprint(model),
        "dataset_sha256": dataset_fingerprint(test),
        "max_new_tokens": max_new_tokens,
    }


def adapter_fingerprint(model: PreTrainedModel) -> str:
    """SHA-256 over all weights that are not the base model's."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if not name.startswith("language_model."):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def dataset_fingerprint(dataset: Dataset) -> str:
    """SHA-256 over ids, molecules, prompts and answers, in order."""
    digest = hashlib.sha256()
    for row in dataset:
        line = json.dumps([row["id"], row["molecule"], row["prompt"], row["answer"]])
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def ask(
    arm: str,
    rows: Sequence[Mapping],
    predictions: PredictionFile,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    max_new_tokens: int,
    batch_size: int,
) -> None:
    """Ask one arm the rows that have no answer yet, and keep each batch as it comes.

    Args:
        arm: key of `ADAPTER_ON`.
        rows: dataset rows.
        predictions: where the answers are kept.
        model: a MoRA model.
        processor: its processor.
        max_new_tokens: longest answer in tokens.
        batch_size: rows per batch.
    """
    missing = [row for row in rows if (row["id"], row["property"], arm) not in predictions.answered]
    batches = iterate_answers(
        model,
        processor,
        prompts=[row["prompt"] for row in missing],
        molecules=[row["molecule"] for row in missing],
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        use_adapter=ADAPTER_ON[arm],
        description=ARM_TITLES[arm],
    )
    for batch in batches:
        predictions.append(
            {
                "id": missing[index]["id"],
                "arm": arm,
                "property": missing[index]["property"],
                "molecule": missing[index]["molecule"],
                "answer": missing[index]["answer"],
                "text": answer.text,
                "finished": answer.finished,
                "parsed": read_answer(missing[index]["task"], answer),
            }
            for index, answer in batch.items()
        )


def read_answer(task: str, answer: Answer) -> float | None:
    """Read the number in an answer; None where there is none, or the text was cut off.

    A text that was cut off may end in half a number.
    """
    return get_task(task).parse(answer.text) if answer.finished else None


def values_per_arm(
    name: str, rows: Sequence[Mapping], training: Dataset, predictions: PredictionFile
) -> dict[str, list[float | None]]:
    """Collect what every arm predicts for one property.

    Args:
        name: the property.
        rows: test rows of that property.
        training: the training split, which gives the mean.
        predictions: the answers of the arms that were asked.

    Returns:
        For each arm of `ARM_TITLES`, predictions aligned with `rows`, in hartree.
    """
    training_targets = [
        float(answer)
        for answer, asked in zip(training["answer"], training["property"], strict=True)
        if asked == name
    ]
    values: dict[str, list[float | None]] = {"mean": mean_baseline(training_targets, len(rows))}
    for arm in ADAPTER_ON:
        values[arm] = [predictions.answered[row["id"], name, arm]["parsed"] for row in rows]
    return values


def print_scores(name: str, scores: Mapping[str, RegressionScore], console: Console) -> None:
    """Print one property's table, a row per arm.

    Args:
        name: the property.
        scores: arm -> score.
        console: where to print.
    """
    table = Table(title=f"QM9 {name}, held-out test molecules, policy: {POLICY}")
    table.add_column("arm")
    for column in ("MAE (hartree)", "MAE (eV)", "parsed", "n"):
        table.add_column(column, justify="right")
    for arm, score in scores.items():
        errors = ("—", "—")
        if score.mae is not None:
            errors = (f"{score.mae:#.3g}", f"{score.mae_ev:#.3g}")
        table.add_row(ARM_TITLES[arm], *errors, f"{score.parsed_share:.1%}", str(score.n))
    console.print(table)


def describe_environment() -> dict[str, str]:
    """Versions and device, for the result file."""
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns its exit code, 2 when it cannot start."""
    started = time.monotonic()
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    args = parse_arguments(arguments)
    try:
        data_settings = read_data_settings(args.model)
        data = load_qm9(**data_settings)
        if len(data["test"]) == 0:
            raise ValueError("data.json of this model holds no test molecules: nothing to score")
        processor = load_processor(args.model)
        model = load_model(args.model)
        max_new_tokens = answer_budget(processor, data["train"]["answer"])
        run = describe_run(model, data["test"], max_new_tokens)
        predictions = PredictionFile(args.output_dir, run)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    rows = data["test"].to_list()[: args.max_examples]
    reused = len(predictions.answered)
    for arm in ADAPTER_ON:
        ask(arm, rows, predictions, model, processor, max_new_tokens, args.batch_size)

    scores: dict[str, dict[str, RegressionScore]] = {}
    parity = {}
    for name in dict.fromkeys(row["property"] for row in rows):
        asked = [row for row in rows if row["property"] == name]
        targets = [float(row["answer"]) for row in asked]
        values = values_per_arm(name, asked, data["train"], predictions)
        scores[name] = {arm: score_regression(targets, values[arm]) for arm in values}
        parity[name] = (targets, values["mora"])
        print_scores(name, scores[name], Console())

    save_parity_plot(parity, args.output_dir / "parity.png")
    results = {
        "task": "property_prediction",
        "dataset": "qm9",
        "split": "test",
        "policy": POLICY,
        "unit": "hartree",
        "scores": {
            name: {
                arm: {**asdict(score), "mae_ev": score.mae_ev, "parsed_share": score.parsed_share}
                for arm, score in arms.items()
            }
            for name, arms in scores.items()
        },
        "model": args.model,
        **run,
        "rows_in_test_split": len(data["test"]),
        "rows_scored": len(rows),
        "decoding": "greedy",
        "data": data_settings,
        "split_seed": data_settings.get("seed"),
        "versions": describe_environment(),
        "command": shlex.join(["python", "-m", "eval.benchmark", *arguments]),
        "finished_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "wall_time_s": round(time.monotonic() - started, 1),
        "answers_reused": reused,
    }
    path = args.output_dir / "results.json"
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"Wrote predictions.jsonl, results.json and parity.png to {args.output_dir}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
