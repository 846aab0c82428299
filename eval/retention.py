# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""What the frozen LLM inside a MoRA checkpoint keeps: its logits, its perplexity, its answers.

    python -m eval.retention --model DIR [--text FILE] [--molecule SMILES] [--output_dir DIR]

A text is scored by the base model loaded on its own, and by the checkpoint without a molecule, with
its adapter disabled, and with a molecule. Its lines that end in a question mark are also asked.
Writes `retention.json`. The text that is used when none is given was written for this project.
"""

import argparse
import gc
import hashlib
import json
import math
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from textwrap import shorten

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tqdm.auto import tqdm
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
)

from eval.generation import generate_answers, load_model, load_processor
from modeling_mora.base_models_mora import resolve_base

DEFAULT_TEXT = Path(__file__).with_name("retention.txt")
ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
PACKAGES = ("torch", "transformers")
# The terminal shows so many answers, and so many characters of each; `retention.json` has all.
ANSWERS_SHOWN = 6
SHOWN_WIDTH = 90

ARM_TITLES = {
    "base": "base model on its own",
    "no_molecule": "MoRA, no molecule",
    "disabled": "MoRA, adapter disabled",
    "molecule": "MoRA, with the molecule",
}
# These are the base model by law, so one different bit is a failure.
MUST_EQUAL_BASE = ("no_molecule", "disabled")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.retention",
        description="Show what the frozen LLM inside a MoRA checkpoint keeps.",
    )
    parser.add_argument("--model", required=True, help="MoRA checkpoint: a folder or a Hub id")
    parser.add_argument("--text", type=Path, default=DEFAULT_TEXT, help="text file in UTF-8")
    parser.add_argument(
        "--molecule", default=ASPIRIN, help="SMILES, SELFIES or InChI of the arm with a molecule"
    )
    parser.add_argument("--window", type=int, default=512, help="tokens that are read at once")
    parser.add_argument("--stride", type=int, default=256, help="tokens from window to window")
    parser.add_argument("--max_new_tokens", type=int, default=40, help="longest answer in tokens")
    parser.add_argument("--batch_size", type=int, default=32, help="questions per batch")
    parser.add_argument(
        "--output_dir",
        type=Path,
        help="where retention.json goes (default: MODEL/retention, or ./retention for a Hub id)",
    )
    args = parser.parse_args(arguments)
    for name in ("stride", "max_new_tokens", "batch_size"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} {getattr(args, name)}: give at least 1")
    if args.window <= args.stride:
        parser.error(
            f"--window {args.window} --stride {args.stride}: a window must be longer than the "
            "stride, so that each scored token has others before it"
        )
    if args.output_dir is None:
        args.output_dir = (Path(args.model) if Path(args.model).is_dir() else Path()) / "retention"
    return args


@dataclass(frozen=True)
class Score:
    """What one arm makes of the text.

    Attributes:
        perplexity: exp of the mean negative log-likelihood of all tokens but the first.
        tokens: how many tokens were scored.
        fingerprints: SHA-256 of each window's logits, bit by bit.
    """

    perplexity: float
    tokens: int
    fingerprints: tuple[str, ...]


def split_windows(tokens: int, window: int, stride: int) -> list[tuple[int, int, int]]:
    """Cut a text into overlapping windows that score each token once, but the first of all.

    Returns:
        (start, first scored token, end) of each window, counted in tokens of the text.
    """
    windows = [(0, 1, min(window, tokens))]
    while windows[-1][2] < tokens:
        start, _, end = windows[-1]
        windows.append((start + stride, end, min(start + stride + window, tokens)))
    return windows


@torch.inference_mode()
def score_text(
    model: PreTrainedModel,
    input_ids: torch.Tensor,
    windows: Sequence[tuple[int, int, int]],
    description: str,
    **molecule: torch.Tensor,
) -> Score:
    """Score a text window by window.

    Args:
        model: a causal language model.
        input_ids: [1, T] tokens of the text.
        windows: see [`split_windows`].
        description: label of the progress bar.
        molecule: what else the model is given with each window, such as the `graph_…` tensors.
    """
    loss, scored, fingerprints = 0.0, 0, []
    for start, first, end in tqdm(windows, desc=description, unit="window"):
        ids = input_ids[:, start:end].to(model.device)
        logits = model(input_ids=ids, **molecule, use_cache=False).logits[0]
        bits = logits.cpu().contiguous().view(torch.uint8).numpy()
        fingerprints.append(hashlib.sha256(bits).hexdigest())
        predicting, targets = logits[first - start - 1 : -1], ids[0, first - start :]
        losses = torch.nn.functional.cross_entropy(predicting.float(), targets, reduction="sum")
        loss += losses.item()
        scored += len(targets)
    return Score(math.exp(loss / scored), scored, tuple(fingerprints))


def read_text(path: Path) -> tuple[str, list[str]]:
    """Read a text, and the questions in it: its lines that end in a question mark.

    Raises:
        OSError: there is no such file.
        ValueError: it is not UTF-8, or holds nothing.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: {error}") from error
    if not text.strip():
        raise ValueError(f"{path} is empty: there is nothing to score")
    lines = [line.strip() for line in text.splitlines()]
    return text, [line for line in lines if line.endswith("?")]


def check_window(window: int, config: PreTrainedConfig) -> None:
    """Raise where a window is longer than the base model was made for."""
    longest = getattr(config.text_config, "max_position_embeddings", None)
    if longest is not None and window > longest:
        raise ValueError(
            f"--window {window}: the base model reads {longest} tokens at most "
            "(max_position_embeddings); give a shorter window"
        )


def load_base(config: PreTrainedConfig) -> PreTrainedModel:
    """Load the base model that a MoRA checkpoint names, without MoRA.

    Raises:
        OSError: it cannot be loaded.
        ValueError: the checkpoint names none, or has another vocabulary.
    """
    if config.base_model_name_or_path is None:
        raise ValueError(
            "the checkpoint names no base model, so there is nothing to compare it with: set "
            "base_model_name_or_path in its config.json"
        )
    if config.resized_embeddings:
        raise ValueError(
            "the vocabulary of the checkpoint was resized (resized_embeddings in its config.json), "
            "so its logits have another shape than those of the base model"
        )
    base = AutoModelForCausalLM.from_pretrained(
        resolve_base(config.base_model_name_or_path),
        revision=config.base_revision,
        dtype=config.dtype,
    )
    return base.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def score_arms(
    args: argparse.Namespace, config: PreTrainedConfig, processor: ProcessorMixin, text: str
) -> tuple[dict[str, Score], PreTrainedModel]:
    """Score the text by each arm of `ARM_TITLES`; also returns the loaded checkpoint.

    The two models are never in memory together, which is why fingerprints are compared and not
    logits.
    """
    input_ids = processor.tokenizer(text, return_tensors="pt", verbose=False)["input_ids"]
    if input_ids.shape[1] < 2:
        raise ValueError(f"{args.text} holds one token: a text of two is the shortest to score")
    windows = split_windows(input_ids.shape[1], args.window, args.stride)
    base = load_base(config)
    scores = {"base": score_text(base, input_ids, windows, ARM_TITLES["base"])}
    del base
    gc.collect()

    model = load_model(args.model)
    molecules = {"no_molecule": None, "disabled": args.molecule, "molecule": args.molecule}
    for arm, molecule in molecules.items():
        graph = processor(molecules=[molecule], return_tensors="pt").to(model.device)
        with model.disable_adapter() if arm == "disabled" else nullcontext():
            scores[arm] = score_text(model, input_ids, windows, ARM_TITLES[arm], **graph)
    return scores, model


def ask_both(
    args: argparse.Namespace,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    questions: Sequence[str],
) -> list[dict[str, str]]:
    """Greedy answers with the adapter on, the molecule given to each question, and off."""
    answers = {
        name: generate_answers(
            model,
            processor,
            prompts=questions,
            molecules=[args.molecule] * len(questions),
            max_new_tokens=args.max_new_tokens,
            batch_size=args.batch_size,
            use_adapter=use_adapter,
            description=f"answers, adapter {name}",
        )
        for name, use_adapter in (("off", False), ("on", True))
    }
    return [
        {"question": question, "off": off.text, "on": on.text}
        for question, off, on in zip(questions, answers["off"], answers["on"], strict=True)
    ]


def equals_base(scores: dict[str, Score], arm: str) -> bool:
    """Whether an arm's logits are the base model's, bit by bit, in every window."""
    return scores[arm].fingerprints == scores["base"].fingerprints


def print_report(
    scores: dict[str, Score], answers: Sequence[dict[str, str]], console: Console
) -> None:
    """Print perplexities, whether logits are the base model's, and the first answers."""
    base = scores["base"]
    table = Table(title=f"{base.tokens:,} tokens in {len(base.fingerprints)} windows")
    table.add_column("model")
    table.add_column("perplexity", justify="right")
    table.add_column("logits bit by bit those of the base")
    for arm, title in ARM_TITLES.items():
        same = "—" if arm == "base" else "yes" if equals_base(scores, arm) else "no"
        table.add_row(title, f"{scores[arm].perplexity:.4f}", same)
    console.print(table)
    if not answers:
        console.print("The text holds no line that ends in a question mark: nothing was asked.")
        return
    unchanged = sum(answer["off"] == answer["on"] for answer in answers)
    table = Table(
        title=f"greedy answers: {unchanged} of {len(answers)} are the same", show_lines=True
    )
    for column in ("question", "adapter off", "adapter on, with the molecule"):
        table.add_column(column, ratio=1)
    for answer in answers[:ANSWERS_SHOWN]:
        cells = (shorten(answer[key], SHOWN_WIDTH) for key in ("question", "off", "on"))
        # Text, because rich reads brackets in a plain string as markup.
        table.add_row(*map(Text, cells))
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; returns its exit code: 1 if the base was changed, 2 without a result."""
    started = time.monotonic()
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    args = parse_arguments(arguments)
    try:
        text, questions = read_text(args.text)
        processor = load_processor(args.model)
        processor.feature_extractor.featurize(args.molecule)
        config = AutoConfig.from_pretrained(args.model, trust_remote_code=True)
        check_window(args.window, config)
        scores, model = score_arms(args, config, processor, text)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    answers = ask_both(args, model, processor, questions)
    print_report(scores, answers, Console())

    results = {
        "schema": 1,
        "model": args.model,
        "base_model": config.base_model_name_or_path,
        "base_revision": config.base_revision,
        "base_fingerprint": config.base_fingerprint,
        "text": args.text.name,
        "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "molecule": args.molecule,
        "tokens_scored": scores["base"].tokens,
        "window": args.window,
        "stride": args.stride,
        "windows": len(scores["base"].fingerprints),
        "perplexity": {arm: score.perplexity for arm, score in scores.items()},
        "bit_identical_to_base": {
            arm: equals_base(scores, arm) for arm in ARM_TITLES if arm != "base"
        },
        "answers_same": sum(answer["off"] == answer["on"] for answer in answers),
        "answers": answers,
        "decoding": {"strategy": "greedy", "max_new_tokens": args.max_new_tokens},
        "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "command": shlex.join(["python", "-m", "eval.retention", *arguments]),
        "finished_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "wall_time_s": round(time.monotonic() - started, 1),
    }
    args.output_dir.mkdir(parents=True, exist_ok=True)
    path = args.output_dir / "retention.json"
    path.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"Wrote {path}")
    changed = [arm for arm in MUST_EQUAL_BASE if not equals_base(scores, arm)]
    if changed:
        arms = ", ".join(ARM_TITLES[arm] for arm in changed)
        print(f"error: logits differ from the base model's: {arms}", file=sys.stderr)
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
