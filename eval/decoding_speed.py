# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""How long decoding takes with a molecule's weights, relative to the base model alone.

    python -m eval.decoding_speed --model DIR [--batch_size 1] [--new_tokens 64] [--repeats 15]

All arms run in turn in one process, so that what else the machine does slows all of them alike;
the ratio to the base is taken within each turn, and its median and quartiles are shown.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM

from eval.generation import load_model, load_processor, require_mora
from modeling_mora.base_models_mora import resolve_base

MOLECULE = "CC(=O)Oc1ccccc1C(=O)O"
QUESTION = f"What is the HOMO-LUMO gap of {MOLECULE} in hartree?"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.decoding_speed",
        description="Time decoding with and without a molecule's weights.",
    )
    parser.add_argument("--model", required=True, help="MoRA checkpoint: a folder or a Hub id")
    parser.add_argument("--batch_size", type=int, default=1, help="rows per batch")
    parser.add_argument("--new_tokens", type=int, default=64, help="tokens to generate")
    parser.add_argument("--repeats", type=int, default=15, help="turns that are timed")
    args = parser.parse_args(arguments)
    for name in ("batch_size", "new_tokens", "repeats"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} {getattr(args, name)}: give at least 1")
    return args


@dataclass(frozen=True)
class Arm:
    """Something to time: `run`, inside a context that is entered before the clock starts."""

    run: Callable[[], object]
    context: Callable[[], AbstractContextManager] = nullcontext


def time_in_turn(arms: dict[str, Arm], repeats: int) -> dict[str, np.ndarray]:
    """Seconds of each arm in each turn.

    Another arm is the first one of each turn. One turn before them is not counted.
    """
    seconds = {name: [] for name in arms}
    for turn in tqdm(range(repeats + 1), desc="turns"):
        names = list(arms)
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            with arms[name].context():
                start = time.perf_counter()
                arms[name].run()
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                elapsed = time.perf_counter() - start
            if turn > 0:
                seconds[name].append(elapsed)
    return {name: np.array(values) for name, values in seconds.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns its exit code, 2 when it cannot start."""
    args = parse_arguments(arguments)
    try:
        require_mora(args.model)
        processor, model = load_processor(args.model), load_model(args.model)
        base_name = resolve_base(model.config.base_model_name_or_path)
        base = AutoModelForCausalLM.from_pretrained(base_name, revision=model.config.base_revision)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    base = base.to(model.device).eval()
    questions = [QUESTION] * args.batch_size
    text = processor(text=questions, return_tensors="pt").to(model.device)
    graphs = processor(molecules=[MOLECULE] * args.batch_size, return_tensors="pt")
    graphs = graphs.to(model.device)
    settings = {"max_new_tokens": args.new_tokens, "do_sample": False, "eos_token_id": None}
    with torch.no_grad():
        weights = model.encode_molecules(**{name: t[:1] for name, t in graphs.items()})

    def merge_alone() -> None:
        with model.merged(weights):
            pass

    arms = {
        "base model": Arm(lambda: base.generate(**text, **settings)),
        "merged": Arm(
            lambda: model.generate(**text, **settings), context=lambda: model.merged(weights)
        ),
        "a weight set per row": Arm(lambda: model.generate(**text, **graphs, **settings)),
        "merging and restoring alone": Arm(merge_alone),
    }
    with torch.inference_mode():
        seconds = time_in_turn(arms, args.repeats)

    title = f"{args.new_tokens} tokens, batch of {args.batch_size}, {model.device.type}"
    table = Table(title=title)
    for column in ("arm", "seconds", "time relative to the base", "quartiles"):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for name, values in seconds.items():
        ratio = np.percentile(values / seconds["base model"], [25, 50, 75])
        quartiles = f"{ratio[0]:.2f}–{ratio[2]:.2f}"
        table.add_row(name, f"{np.median(values):.3f}", f"{ratio[1]:.2f}", quartiles)
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
