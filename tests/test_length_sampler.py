# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Rows grouped by length: little padding, no order of lengths, and every row once."""

import random

import pytest
from scipy.stats import spearmanr

from training.length_sampler import RepeatableLengthSampler

BATCH = 8


def batches_of(lengths: list[int], epoch: int = 0, seed: int = 0) -> list[list[int]]:
    sampler = RepeatableLengthSampler(BATCH, lengths, seed)
    sampler.set_epoch(epoch)
    rows = list(sampler)
    assert len(rows) == len(sampler)
    return [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]


@pytest.mark.parametrize("n", [1, 7, 8, 9, 16, 8 * 100, 8 * 100 + 3])
def test_every_row_comes_once(n: int):
    lengths = [random.Random(row).randint(10, 200) for row in range(n)]
    batches = batches_of(lengths)
    assert sorted(row for batch in batches for row in batch) == list(range(n))
    assert [len(batch) for batch in batches[:-1]] == [BATCH] * (len(batches) - 1)


def test_batches_are_alike_inside_and_in_random_order():
    lengths = [random.Random(row).randint(10, 200) for row in range(BATCH * 200)]
    batches = batches_of(lengths)
    longest = [max(lengths[row] for row in batch) for batch in batches]
    padded = sum(BATCH * length for length in longest)
    assert padded < 1.05 * sum(lengths)
    assert longest[0] == max(lengths)  # what does not fit into memory fails at once
    # Sorted by length within each 50 batches, as the Trainer's own are, this would be near -1.
    for start in range(0, 200, 50):
        correlation = spearmanr(range(50), longest[start : start + 50]).statistic
        assert abs(correlation) < 0.5


def test_seed_and_epoch_alone_decide():
    lengths = [random.Random(row).randint(10, 200) for row in range(BATCH * 20)]
    assert batches_of(lengths, 1) == batches_of(lengths, 1)
    assert batches_of(lengths, 1) != batches_of(lengths, 2)
    assert batches_of(lengths, 1) != batches_of(lengths, 1, seed=5)
