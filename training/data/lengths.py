# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""How long examples are in tokens and how large their molecules, in numbers and as a picture."""

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset, Features, Value
from datasets.fingerprint import Hasher
from matplotlib.ticker import MaxNLocator
from rdkit import Chem
from rich.table import Table

from eval.plots.figure import new_figure, save
from training import tokenization
from training.data.build import ROW_NUMBER, processes
from training.data.rejections import Rejections
from training.tokenization import AnswerError, tokenize_example

FEATURES = Features(
    {
        "task": Value("string"),
        "tokens": Value("int64"),
        "atoms": Value("int64"),
        "problem": Value("string"),
    }
)
MEASURES = list(FEATURES)
BINS = 60


def measure(dataset: Dataset, tokenizer: Any, num_proc: int | None = None) -> pd.DataFrame:
    """Tokens and heavy atoms of every example.

    Args:
        dataset: examples with the columns of `training.data`.
        tokenizer: a tokenizer with a chat template.
        num_proc: processes; None for one.

    Returns:
        For each example `task`, `tokens` (int, prompt and answer together, as training sees them),
        `atoms` (int, 0 without a molecule) and `problem`: why its answer cannot be tokenised, or
        None.

    Raises:
        ValueError: the chat template is missing or does not fit.
    """
    measured = dataset.map(
        _measure_batch,
        batched=True,
        remove_columns=[column for column in dataset.column_names if column != "task"],
        features=FEATURES,
        fn_kwargs={"tokenizer": tokenizer},
        num_proc=processes(num_proc, len(dataset)),
        # A tokenizer's own hash changes while it is used.
        new_fingerprint=Hasher.hash([dataset._fingerprint, tokenizer_fingerprint(tokenizer)]),
        desc="Measuring",
    )
    return measured.to_pandas() if len(measured) else pd.DataFrame(columns=MEASURES)


def drop_unusable(
    dataset: Dataset,
    lengths: pd.DataFrame,
    max_length: int,
    split: str,
    rejections: Rejections,
) -> Dataset:
    """Leave out, as rejections, what cannot be tokenised or is too long; none is ever cut."""
    unusable = (lengths["problem"].notna() | (lengths["tokens"] > max_length)).to_numpy()
    if not unusable.any():
        return dataset
    for row in unusable.nonzero()[0]:
        example, (_, tokens, _, problem) = dataset[int(row)], lengths[MEASURES].iloc[row]
        if isinstance(problem, str):
            rejections.add(
                split, example["id"], "answer", example["answer"], problem, example.get(ROW_NUMBER)
            )
        else:
            reason = f"too long: {tokens} tokens, more than max_length={max_length}"
            rejections.add(
                split, example["id"], "prompt", example["prompt"], reason, example.get(ROW_NUMBER)
            )
        rejections.accepted -= 1
    return dataset.select((~unusable).nonzero()[0])


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Hash of what a tokenizer does to an example, and of the code that asks it."""
    if tokenizer.is_fast:
        # Padding and truncation are remembered from the last call; lengths do not depend on them.
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()
        content = tokenizer.backend_tokenizer.to_str()
    else:
        content = str(sorted(tokenizer.get_vocab().items()))
    digest = hashlib.sha256(f"{content}{tokenizer.chat_template}".encode())
    for module in (__file__, tokenization.__file__):
        digest.update(Path(module).read_bytes())
    return digest.hexdigest()


def length_table(lengths: Mapping[str, pd.DataFrame]) -> Table:
    """Examples, tokens and heavy atoms by split and task, for the screen.

    Args:
        lengths: from `measure`, by split.
    """
    table = Table(title="Examples", title_justify="left")
    table.add_column("split")
    table.add_column("task", overflow="fold")
    table.add_column("rows", justify="right")
    for column in ("tokens", "atoms"):
        table.add_column(f"{column}\n50%, 95%, max", justify="right")
    for split, frame in lengths.items():
        for task, part in frame.groupby("task"):
            cells = [
                ", ".join(f"{value:.0f}" for value in np.percentile(part[column], [50, 95, 100]))
                for column in ("tokens", "atoms")
            ]
            table.add_row(split, task, f"{len(part):,}", *cells)
    return table


def save_histograms(lengths: pd.DataFrame, max_length: int, path: Path) -> None:
    """Write a PNG with the distributions of tokens and of heavy atoms, a line for each task.

    Args:
        lengths: from `measure`, with those that were too long.
        max_length: drawn as a limit.
        path: where the PNG is written.
    """
    figure = new_figure(10.0, 4.2)
    for axes, column, label in zip(
        figure.subplots(1, 2),
        ("tokens", "atoms"),
        ("tokens of prompt and answer", "heavy atoms of the molecule"),
        strict=True,
    ):
        values = lengths[column]
        low, high = int(values.min()), int(values.max())
        # Whole numbers in each bin, so that no bin is empty for arithmetic alone.
        step = max(1, -(-(high - low + 1) // BINS))
        bins = np.arange(low, high + step + 1, step) - 0.5
        for task, part in lengths.groupby("task"):
            axes.hist(part[column], bins=bins, histtype="step", linewidth=1.5, label=task)
        axes.set_xlabel(label)
        axes.set_ylabel("examples")
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    tokens = figure.axes[0]
    too_long = int((lengths["tokens"] > max_length).sum())
    if too_long:
        tokens.axvline(
            max_length + 0.5,
            color="0.4",
            linestyle="--",
            label=f"max_length {max_length}: {too_long:,} left out",
        )
    figure.suptitle(f"{len(lengths):,} examples")
    figure.legend(
        *tokens.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False
    )
    save(figure, path)


def _measure_batch(batch: dict[str, list], tokenizer: Any) -> dict[str, list]:
    tokens, problems = [], []
    for prompt, answer in zip(batch["prompt"], batch["answer"], strict=True):
        try:
            example = tokenize_example(prompt, answer, tokenizer, max_length=sys.maxsize)
            tokens.append(len(example["input_ids"]))
            problems.append(None)
        except AnswerError as error:
            tokens.append(0)
            problems.append(str(error))
    return {
        "task": batch["task"],
        "tokens": tokens,
        "atoms": [_count_atoms(molecule) for molecule in batch["molecule"]],
        "problem": problems,
    }


def _count_atoms(smiles: str | None) -> int:
    if smiles is None:
        return 0
    return Chem.MolFromSmiles(smiles, sanitize=False).GetNumHeavyAtoms()
