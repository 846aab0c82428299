# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Training questions without their molecule's string, so that only the graph says what it is."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from datasets import Dataset

from modeling_mora.tasks_mora import Task

# What a question is known by.
OF_QUESTION = ("task", "source", "id", "property", "prompt")


def hide_strings(
    dataset: Dataset, share: float, seed: int, task_of: Callable[[str], Task]
) -> Dataset:
    """Put words in place of the molecule's string in a share of the questions.

    Args:
        dataset: columns named in `training.data`.
        share: of the rows, from 0 to 1; each is drawn by itself, so it holds on average.
        seed: of the draw.
        task_of: from a task's name to the task with the settings of the data.

    Returns:
        The same rows in the same order, with some prompts changed.

    Raises:
        ValueError: names a row whose question does not hold its molecule's string.
    """
    prompts, hidden = [], 0
    for number, row in enumerate(dataset.select_columns([*OF_QUESTION, "molecule"])):
        prompt = row["prompt"]
        if row["molecule"] is not None and is_drawn(row, share, seed):
            prompt = task_of(row["task"]).hide_molecule(prompt, row["molecule"], number)
            hidden += 1
        prompts.append(prompt)
    print(f"{hidden:,} of {len(dataset):,} training questions do not hold their molecule's string.")
    return dataset.remove_columns("prompt").add_column("prompt", prompts)


def is_drawn(row: Mapping[str, Any], share: float, seed: int) -> bool:
    """Whether a row is among the share, whatever other rows there are and in whatever order."""
    text = json.dumps([seed, *(row[key] for key in OF_QUESTION)])
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return number / 2**64 < share
