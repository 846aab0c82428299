# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""How likely a model finds the right answers, which tells models apart that are rarely right.

    python -m eval.answer_loss --model runs/mora --controls shuffled_molecule
    python -m eval.answer_loss --model runs/mora --than runs/lora/benchmark

Nothing is generated: each right answer is read behind its question, and its tokens bear the loss,
as in training. `--than` names folders where this command has scored other models on the same rows.
The output folder gets `answer_loss.jsonl`, a line for each row and control, and `answer_loss.json`;
what they hold already is not read again.
"""

import argparse
import contextlib
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from eval.benchmark import describe_model, shown_path
from eval.bootstrap import LEVEL, RESAMPLES, percentile_interval, resample
from eval.generation import load_model, load_processor, sort_into_batches
from eval.predictions import replace_file
from eval.question_arguments import parse_questions, question_parser
from eval.questions import (
    CONTROLS,
    fingerprint,
    from_prepared,
    load_data_of,
    make_questions,
    select_rows,
)
from modeling_mora.chat_mora import around_answer, first_special_token
from training.data.prepared import load_prepared

SCHEMA = 1
ROWS, SUMMARY = "answer_loss.jsonl", "answer_loss.json"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = question_parser("eval.answer_loss", "Loss of the right answers.", batch_size=16)
    parser.add_argument(
        "--than", nargs="+", type=Path, default=[], help="folders with other models' answer losses"
    )
    return parse_questions(parser, arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Score a model; returns the exit code, 2 when it cannot start."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    args = parse_arguments(arguments)
    try:
        data = from_prepared(load_prepared(args.data)) if args.data else load_data_of(args.model)
        rows = select_rows(data, args.split, args.task, args.max_examples)
        others = {str(folder): read_losses(folder, fingerprint(rows)) for folder in args.than}
        processor = load_processor(args.model)
        model = load_model(args.model, args.dtype)
        run = {
            **describe_model(args.model, model),
            "data": shown_path(data.name),
            "split": args.split,
            "dataset_sha256": fingerprint(rows),
            "batch_size": args.batch_size,
            "dtype": args.dtype,
            "shuffle_seed": args.seed,
        }
        known = read_known(args.output_dir, run)
        controls = [None, *(name for name in CONTROLS if name in {*known, *args.controls})]
        questions = [
            question
            for control in controls
            if control not in known
            for question in make_questions(rows, control, args.seed, data.task)
        ]
        known |= group_by_control(read_answers(model, processor, questions, args.batch_size))
        records = [record for control in controls for record in known[control]]
        for name, losses in others.items():
            check_rows(known[None], losses, name)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    summary = {
        "schema": SCHEMA,
        "model": args.model,
        "run": run,
        "bootstrap": {"resamples": RESAMPLES, "level": LEVEL, "seed": args.seed, "paired": True},
        "losses": summarize(records, others, args.seed),
        "command": shlex.join(["python", "-m", "eval.answer_loss", *arguments]),
    }
    print_losses(summary["losses"], Console())
    args.output_dir.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(record) + "\n" for record in records)
    replace_file(args.output_dir / ROWS, lines)
    replace_file(args.output_dir / SUMMARY, json.dumps(summary, indent=2) + "\n")
    print(f"Wrote {ROWS} and {SUMMARY} to {args.output_dir}")
    return 0


def read_answers(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    questions: Sequence[Mapping[str, Any]],
    batch_size: int,
) -> list[dict[str, Any]]:
    """The loss of each question's reference.

    Args:
        model: what `load_model` returns.
        processor: its processor.
        questions: of `make_questions`, of one control or several.
        batch_size: rows per batch.

    Returns:
        By question, `row`, `id`, `source`, `task`, `property`, `control`, `nats`, the sum over the
        tokens of the answer and the one that ends it, and `tokens`, their number.
    """
    keys = ("row", "id", "source", "task", "property", "control")
    records = [{key: question[key] for key in keys} for question in questions]
    with tqdm(total=len(questions), desc="reading answers", unit="row") as progress:
        for use_adapter in (True, False):
            chosen = [
                number
                for number, question in enumerate(questions)
                if (question["control"] != "base_model") == use_adapter
            ]
            texts = [questions[n]["prompt"] + questions[n]["reference"] for n in chosen]
            for positions in sort_into_batches(processor, texts, batch_size):
                batch = [chosen[position] for position in positions]
                rows = [questions[number] for number in batch]
                losses = answer_losses(model, processor, rows, use_adapter)
                for number, (nats, tokens) in zip(batch, losses, strict=True):
                    records[number] |= {"nats": nats, "tokens": tokens}
                progress.update(len(batch))
    return records


@torch.inference_mode()
def answer_losses(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    questions: Sequence[Mapping[str, Any]],
    use_adapter: bool = True,
) -> list[tuple[float, int]]:
    """Sum of the losses of the reference's tokens, in nats, and their number, for one batch.

    Args:
        model: what `load_model` returns.
        processor: its processor.
        questions: with `prompt`, `graph` (a molecule or None) and `reference`.
        use_adapter: False reads with the base model alone.
    """
    tokenizer = processor.tokenizer
    answers = [answer_tokens(tokenizer, q["prompt"], q["reference"]) for q in questions]
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question["prompt"]}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
        )["input_ids"]
        for question in questions
    ]
    whole = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    text = tokenizer.pad({"input_ids": whole}, padding_side="left", return_tensors="pt")
    graphs = processor.feature_extractor([q["graph"] for q in questions], return_tensors="pt")
    # The position before the longest answer predicts its first token.
    kept = max(map(len, answers)) + 1
    length = text["input_ids"].shape[1]
    text["position_ids"] = (text["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    inputs = {name: value.to(model.device) for name, value in {**text, **graphs}.items()}
    inputs["logits_to_keep"] = torch.arange(length - kept, length, device=model.device)
    with contextlib.nullcontext() if use_adapter else model.disable_adapter():
        logits = model(**inputs).logits[:, :-1].float()
    targets = inputs["input_ids"][:, 1 - kept :]
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), reduction="none"
    ).view_as(targets)
    return [
        (row[-len(answer) :].double().sum().item(), len(answer))
        for row, answer in zip(losses, answers, strict=True)
    ]


def answer_tokens(tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str) -> list[int]:
    """The tokens of an answer and the one that ends it, as training learns them."""
    around = around_answer(tokenizer, prompt)
    end_id = None if around is None else first_special_token(tokenizer, around[1])
    if end_id is None:
        raise ValueError(
            f"The chat template of {tokenizer.name_or_path!r} does not end an answer with a "
            "special token, so no model can have learned to: give it another one."
        )
    return tokenizer(answer, add_special_tokens=False)["input_ids"] + [end_id]


def read_known(folder: Path, run: Mapping[str, Any]) -> dict[str | None, list[dict[str, Any]]]:
    """What an earlier start has read, by control; nothing if that was about another run."""
    if not (folder / SUMMARY).exists():
        return {}
    if json.loads((folder / SUMMARY).read_text(encoding="utf-8"))["run"] != run:
        return {}
    return group_by_control(read_rows(folder))


def read_losses(folder: Path, dataset_sha256: str) -> list[dict[str, Any]]:
    """The rows of another model, without its controls.

    Raises:
        OSError: it has not been scored.
        ValueError: it has been scored on other rows.
    """
    run = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))["run"]
    if run["dataset_sha256"] != dataset_sha256:
        raise ValueError(
            f"{folder} holds the losses of other rows ({run['dataset_sha256'][:8]}, not "
            f"{dataset_sha256[:8]}): score both models with the same --data, --split, --task and "
            "--max_examples"
        )
    return group_by_control(read_rows(folder))[None]


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The lines of a folder's `answer_loss.jsonl`."""
    lines = (folder / ROWS).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def group_by_control(
    records: Sequence[dict[str, Any]],
) -> dict[str | None, list[dict[str, Any]]]:
    """The records of each control; None is the model itself."""
    groups: dict[str | None, list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault(record["control"], []).append(record)
    return groups


def check_rows(
    records: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]], name: str
) -> None:
    """Refuse losses of other rows, or over other tokens, as of another base LLM.

    Raises:
        ValueError: names the first row whose answer has another number of tokens.
    """
    own = {(record["row"], record["id"]): record["tokens"] for record in records}
    theirs = {(other["row"], other["id"]): other["tokens"] for other in others}
    if own.keys() != theirs.keys():
        raise ValueError(
            f"{name}: has losses of {len(theirs)} rows, of which {len(own.keys() & theirs.keys())} "
            f"are among the {len(own)} here: score both models on the same rows"
        )
    for key, tokens in own.items():
        if theirs[key] != tokens:
            raise ValueError(
                f"{name}: the answer of row {key[0]} has {theirs[key]} tokens there and "
                f"{tokens} here, so losses a token cannot be compared: the models have "
                "different tokenizers or chat templates"
            )


def summarize(
    records: Sequence[Mapping[str, Any]],
    others: Mapping[str, Sequence[Mapping[str, Any]]],
    seed: int,
) -> list[dict[str, Any]]:
    """Mean losses over tokens, by task and source, of the model, its controls and other models.

    Returns:
        Dicts with `task`, `source`, `control`, `than` (name of the other model, or None), `n`,
        `tokens`, `loss` in nats a token with its interval, and `difference`: by how much that is
        more than the model's own, paired by row (None for the model itself).
    """
    sets = {(control, None): rows for control, rows in group_by_control(records).items()}
    sets |= {(None, name): rows for name, rows in others.items()}
    summaries = []
    for task, source in dict.fromkeys((r["task"], r["source"]) for r in records):
        own = None
        for (control, than), rows in sets.items():
            alike = [r for r in rows if (r["task"], r["source"]) == (task, source)]
            nats, tokens = (np.array([r[key] for r in alike]) for key in ("nats", "tokens"))
            own = (nats, tokens) if own is None else own
            same = control is None and than is None
            summaries.append(
                {
                    "task": task,
                    "source": source,
                    "control": control,
                    "than": than,
                    "n": len(alike),
                    "tokens": int(tokens.sum()),
                    "loss": with_interval(nats, tokens, np.zeros_like(nats), tokens, seed),
                    "difference": None if same else with_interval(nats, tokens, *own, seed),
                }
            )
    return summaries


def with_interval(
    nats: np.ndarray, tokens: np.ndarray, own_nats: np.ndarray, own_tokens: np.ndarray, seed: int
) -> dict[str, float]:
    """Difference of two means over tokens, and its interval over rows [n], the same of both."""

    def difference(index: np.ndarray) -> float:
        ours = own_nats[index].sum() / own_tokens[index].sum()
        return float(nats[index].sum() / tokens[index].sum() - ours)

    low, high = percentile_interval([difference(index) for index in resample(len(nats), seed)])
    return {"value": difference(np.arange(len(nats))), "low": low, "high": high}


def print_losses(losses: Sequence[Mapping[str, Any]], console: Console) -> None:
    """A table for each task and source, with a row for the model, each control and other model."""
    for task, source in dict.fromkeys((one["task"], one["source"]) for one in losses):
        title = f"{task.replace('_', ' ')}, {source}: loss of the right answers, nats a token"
        table = Table(title=title, box=box.SIMPLE_HEAD)
        table.add_column(overflow="fold")
        for heading in ("rows", "loss", "more than its own"):
            table.add_column(heading, justify="right", no_wrap=True)
        for one in losses:
            if (one["task"], one["source"]) == (task, source):
                more = one["difference"]
                table.add_row(
                    one["than"] or (one["control"] or "the model").replace("_", " "),
                    str(one["n"]),
                    f"{one['loss']['value']:.4f} {write_interval(one['loss'])}",
                    "" if more is None else f"{more['value']:+.4f} {write_interval(more)}",
                )
        console.print(table)


def write_interval(score: Mapping[str, float]) -> str:
    """Such as `[0.4123, 0.4410]`."""
    return f"[{score['low']:.4f}, {score['high']:.4f}]"


if __name__ == "__main__":
    sys.exit(main())
