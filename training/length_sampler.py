# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Rows grouped by length, in an order that a resumed run finds again."""

from collections.abc import Iterator
from itertools import chain

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler


class RepeatableLengthSampler(LengthGroupedSampler):
    """The Trainer's sampler of `train_sampling_strategy="group_by_length"`, drawn for each epoch.

    That one draws from torch's global state, which a checkpoint within an epoch holds as it is
    behind the drawing: a run that goes on there would see some rows again and others never. And it
    sorts the rows of each 50 batches, so that a run ends each 50 steps on short rows, which may all
    be of one task; here the batches come in random order, but for the longest, which comes first.

    Args:
        batch_size: of all processes together.
        lengths: of each row.
        seed: of the order, with the epoch.
    """

    def __init__(self, batch_size: int, lengths: list[int], seed: int):
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self.seed + self.epoch)
        rows = list(super().__iter__())
        first, *whole = (
            rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)
        )
        # Fewer rows than a batch would move the limits of all batches behind them.
        rest = [whole.pop()] if whole and len(whole[-1]) < self.batch_size else []
        order = torch.randperm(len(whole), generator=self.generator).tolist()
        return chain(first, *(whole[number] for number in order), *rest)
