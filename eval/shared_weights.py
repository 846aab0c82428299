# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""What one weight set per batch costs, as in the code published with the paper.

    python -m eval.shared_weights --model DIR [--max_examples N]

There, the atoms of all molecules of a batch are joined to one sequence, and every row gets the one
weight set generated from it. The same is done here to a model that gives each molecule its own:
every row of a batch is asked with the graph of all the batch's molecules.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel, ProcessorMixin

from eval.benchmark import read_answer, read_data_settings
from eval.generation import (
    answer_budget,
    generate_answers,
    load_model,
    load_processor,
    require_mora,
)
from eval.regression import RegressionScore, mean_baseline, score_regression
from training.data.qm9 import load_qm9

MOLECULES_PER_BATCH = (1, 2, 4, 16)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.shared_weights",
        description="Score a MoRA model with the weights of a batch's molecules mixed.",
    )
    parser.add_argument("--model", required=True, help="MoRA checkpoint: a folder or a Hub id")
    parser.add_argument("--max_examples", type=int, help="only the first N test rows")
    args = parser.parse_args(arguments)
    if args.max_examples is not None and args.max_examples < 1:
        parser.error(f"--max_examples {args.max_examples}: ask for at least one row")
    return args


def score_shared(
    rows: Sequence[Mapping],
    model: PreTrainedModel,
    processor: ProcessorMixin,
    max_new_tokens: int,
    molecules_per_batch: int,
) -> RegressionScore:
    """Score the answers of batches whose rows share one weight set.

    Args:
        rows: dataset rows of one property.
        model: a MoRA model.
        processor: its processor.
        max_new_tokens: longest answer in tokens.
        molecules_per_batch: how many molecules share their weights; 1 is MoRA as it should be.
    """
    molecules = []
    for start in range(0, len(rows), molecules_per_batch):
        batch = rows[start : start + molecules_per_batch]
        joined = ".".join(row["molecule"] for row in batch)
        molecules += [joined] * len(batch)
    generated = generate_answers(
        model,
        processor,
        [row["prompt"] for row in rows],
        molecules,
        max_new_tokens,
        description=f"{molecules_per_batch} per weight set",
    )
    parsed = [read_answer(row["task"], answer) for row, answer in zip(rows, generated, strict=True)]
    return score_regression([float(row["answer"]) for row in rows], parsed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; returns its exit code, 2 when it cannot start."""
    args = parse_arguments(arguments)
    try:
        require_mora(args.model)
        data = load_qm9(**read_data_settings(args.model))
        processor, model = load_processor(args.model), load_model(args.model)
        max_new_tokens = answer_budget(processor, data["train"]["answer"])
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    test = data["test"].to_list()[: args.max_examples]
    for name in dict.fromkeys(row["property"] for row in test):
        rows = [row for row in test if row["property"] == name]
        table = Table(title=f"QM9 {name}: molecules that share one weight set")
        for column in ("molecules per weight set", "MAE (hartree)", "parsed", "n"):
            table.add_column(column, justify="right")
        for count in MOLECULES_PER_BATCH:
            score = score_shared(rows, model, processor, max_new_tokens, count)
            mae = "—" if score.mae is None else f"{score.mae:.4f}"
            table.add_row(str(count), mae, f"{score.parsed_share:.1%}", str(score.n))
        training = [
            float(row["answer"]) for row in data["train"].to_list() if row["property"] == name
        ]
        mean = score_regression(
            [float(row["answer"]) for row in rows], mean_baseline(training, len(rows))
        )
        table.add_row("predict the mean", f"{mean.mae:.4f}", "100.0%", str(mean.n))
        Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
