# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Several sources as one training set, in proportions that can be set."""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import (
    Dataset,
    DatasetDict,
    IterableDataset,
    IterableDatasetDict,
    concatenate_datasets,
    interleave_datasets,
)

from training.data.splits import SPLITS

STOPPING = ("all_exhausted", "first_exhausted", "all_exhausted_without_replacement")


def mix_sources(
    sources: Sequence[DatasetDict | IterableDatasetDict],
    weights: Sequence[float] | None = None,
    temperature: float | None = None,
    sizes: Sequence[int] | None = None,
    stopping: str = "all_exhausted",
    seed: int = 0,
) -> DatasetDict | IterableDatasetDict:
    """Mix the training splits of several sources and join their other splits.

    Args:
        sources: splits of each, all in memory or on disk, or all streams.
        weights: how often each source is drawn from, in any unit. Neither these nor a temperature:
            every example comes once, one source behind the other.
        temperature: draw from a source of n examples in proportion to n**(1/temperature): 1 is
            proportional to size, large values come near to equal parts.
        sizes: numbers of training examples, for streams with a temperature.
        stopping: `"all_exhausted"` repeats small sources until each example has come,
            `"first_exhausted"` stops when one source has no more,
            `"all_exhausted_without_replacement"` lets each example come once.
        seed: seed of the drawing.

    Returns:
        The splits that any source has, in the order of `SPLITS`.

    Raises:
        ValueError: weights or a temperature that cannot work, or streams next to others.
    """
    if not sources:
        raise ValueError("There is no source to mix: name at least one.")
    streams = {isinstance(source, IterableDatasetDict) for source in sources}
    if len(streams) > 1:
        raise ValueError("Some sources are streams and some are not: open all in the same way.")
    if stopping not in STOPPING:
        raise ValueError(f"stopping={stopping!r}: use one of {', '.join(STOPPING)}.")
    mixed: dict[str, Any] = {}
    for split in SPLITS:
        there = [number for number, source in enumerate(sources) if split in source]
        parts = [sources[number][split] for number in there]
        if split != "train" or (weights is None and temperature is None):
            if parts:
                mixed[split] = concatenate_datasets(parts)
            continue
        if len(there) < len(sources):
            missing = next(number for number in range(len(sources)) if number not in there)
            raise ValueError(
                f"Source {missing + 1} has no split 'train' to mix: give it no weight by mixing "
                "it without weights and temperature, or another split."
            )
        if temperature is not None and sizes is None:
            sizes = [_size(part) for part in parts]
        probabilities = mixing_probabilities(len(parts), weights, temperature, sizes)
        mixed[split] = interleave_datasets(
            parts, probabilities=probabilities, seed=seed, stopping_strategy=stopping
        )
    return IterableDatasetDict(mixed) if streams == {True} else DatasetDict(mixed)


def mixing_probabilities(
    number: int,
    weights: Sequence[float] | None = None,
    temperature: float | None = None,
    sizes: Sequence[int] | None = None,
) -> list[float]:
    """How often to draw from each source; they add up to 1.

    Args:
        number: of sources.
        weights: one for each, above 0.
        temperature: above 0; instead of weights.
        sizes: numbers of examples, for a temperature.

    Raises:
        ValueError: says which value cannot work.
    """
    if (weights is None) == (temperature is None):
        raise ValueError(f"weights={weights}, temperature={temperature}: give one of the two.")
    if weights is None:
        if not temperature > 0:
            raise ValueError(f"temperature={temperature}: give a number above 0.")
        weights = [size ** (1 / temperature) for size in sizes or ()]
    if len(weights) != number:
        raise ValueError(f"{len(weights)} weights for {number} sources: give one for each.")
    for position, weight in enumerate(weights, start=1):
        if not weight > 0:
            raise ValueError(
                f"Source {position} has the weight {weight}: give a number above 0, or leave the "
                "source out."
            )
    total = sum(weights)
    return [weight / total for weight in weights]


def source_counts(dataset: Dataset) -> Mapping[str, int]:
    """Number of examples by source, in the order of first appearance."""
    counts: dict[str, int] = {}
    for name in dataset["source"][:]:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _size(part: Dataset | IterableDataset) -> int:
    if isinstance(part, IterableDataset):
        raise ValueError(
            "A temperature needs the sizes of the sources, which streams do not know: pass sizes, "
            "or weights instead of a temperature."
        )
    return len(part)
