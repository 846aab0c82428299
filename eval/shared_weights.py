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

from eval.generation import generate_answers, load_model, load_processor, require_mora
from eval.questions import answer_budgets, load_data_of, make_questions, select_rows
from eval.scores import group_by, predict_mean, score_records, show_value
from modeling_mora.tasks_mora import Task

MOLECULES_PER_BATCH = (1, 2, 4, 16)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.shared_weights",
        description="Score a MoRA model with the weights of a batch's molecules mixed.",
    )
    parser.add_argument("--model", required=True, help="MoRA checkpoint: a folder or a Hub id")
    parser.add_argument("--max_examples", type=int, help="only N test rows, evenly spread")
    args = parser.parse_args(arguments)
    if args.max_examples is not None and args.max_examples < 1:
        parser.error(f"--max_examples {args.max_examples}: ask for at least one row")
    return args


def score_shared(
    rows: Sequence[Mapping],
    task: Task,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    max_new_tokens: int,
    molecules_per_batch: int,
) -> dict[str, dict]:
    """Score the answers of batches whose rows share one weight set.

    Args:
        rows: of `select_rows`, all about one property.
        task: their task.
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
    answers = generate_answers(
        model,
        processor,
        [row["prompt"] for row in rows],
        molecules,
        max_new_tokens,
        description=f"{molecules_per_batch} per weight set",
    )
    records = [
        {**row, "reference": row["answer"], "text": answer.text, "finished": answer.finished}
        for row, answer in zip(rows, answers, strict=True)
    ]
    return score_records(records, task)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; returns its exit code, 2 when it cannot start."""
    args = parse_arguments(arguments)
    try:
        require_mora(args.model)
        data = load_data_of(args.model)
        selected = select_rows(data, "test", ["property_prediction"], args.max_examples)
        processor, model = load_processor(args.model), load_model(args.model)
        max_new_tokens = answer_budgets(data, selected, processor, None)["property_prediction"]
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    task = data.task("property_prediction")
    for (name,), rows in group_by(selected, "property").items():
        table = Table(title=f"{name}: molecules that share one weight set")
        for column in ("molecules per weight set", "MAE", "parsed", "n"):
            table.add_column(column, justify="right")
        scores = {
            str(count): score_shared(rows, task, model, processor, max_new_tokens, count)
            for count in MOLECULES_PER_BATCH
        }
        asked = make_questions(rows, None, seed=0, task_of=data.task)
        mean = predict_mean(asked, data.splits["train"])
        scores["predict the mean"] = score_records(mean, task)
        for label, score in scores.items():
            table.add_row(
                label,
                show_value(score["mae"]["value"]),
                f"{score['parsed']['value']:.1%}",
                str(score["n"]["value"]),
            )
        Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
