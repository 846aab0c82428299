# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""From tokenised examples to a batch."""

from typing import Any

import torch

from training.tokenization import IGNORE_INDEX


class MoraCollator:
    """Pads text on the left and makes the molecules' graph tensors.

    Only the last positions have labels, so the LM head, which is the largest matrix of a small LLM,
    runs over those alone: `labels` is cut to them and `logits_to_keep` is handed to the model,
    whose own loss then works unchanged.

    Args:
        processor: a `MoraProcessor`.
        graphs: whether the model takes the molecules' graphs; without, a batch is text alone.
    """

    def __init__(self, processor: Any, graphs: bool = True):
        self.tokenizer = processor.tokenizer
        self.feature_extractor = processor.feature_extractor
        self.graphs = graphs

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Make a batch.

        Args:
            features: dicts with `input_ids` and `labels` (lists of the same length, `labels`
                starting with -100 on the prompt) and `molecule` (str, or None for text alone).

        Returns:
            `input_ids` [B, T], `attention_mask` [B, T], `position_ids` [B, T] (without padding,
            as `generate` counts them), `labels` [B, K], `logits_to_keep` [K], the last K positions,
            and the `graph_*` tensors. K is the longest answer plus the position that predicts its
            first token. A row without a molecule has an all-False atom mask.
        """
        length = max(len(row["input_ids"]) for row in features)
        answer_length = max(count_answer_tokens(row["labels"]) for row in features)
        kept = min(answer_length + 1, length)

        input_ids, attention_mask, labels = [], [], []
        for row in features:
            padding = length - len(row["input_ids"])
            input_ids.append([self.tokenizer.pad_token_id] * padding + row["input_ids"])
            attention_mask.append([0] * padding + [1] * len(row["input_ids"]))
            labels.append([IGNORE_INDEX] * padding + row["labels"])

        batch = {
            "input_ids": torch.tensor(input_ids),
            "attention_mask": torch.tensor(attention_mask),
            "position_ids": (torch.tensor(attention_mask).cumsum(-1) - 1).clamp(min=0),
            "labels": torch.tensor(labels)[:, -kept:],
            # Not as a number: a slice is not contiguous, and torch would then copy the LM head's
            # matrix for every row in the backward pass.
            "logits_to_keep": torch.arange(length - kept, length),
        }
        if self.graphs:
            molecules = [row["molecule"] for row in features]
            batch.update(self.feature_extractor(molecules, return_tensors="pt"))
        return batch


def count_answer_tokens(labels: list[int]) -> int:
    """Number of positions from the first one that carries loss to the end."""
    prompt_length = next(
        (i for i, label in enumerate(labels) if label != IGNORE_INDEX), len(labels)
    )
    return len(labels) - prompt_length
