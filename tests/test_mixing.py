# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Mixing sources: proportions, order, streams."""

from collections import Counter

import pytest
from datasets import Dataset, DatasetDict, IterableDatasetDict

from training.data.mixing import mix_sources, mixing_probabilities, source_counts


def source(name: str, train: int, test: int = 2) -> DatasetDict:
    return DatasetDict(
        {
            split: Dataset.from_dict(
                {"source": [name] * size, "id": [f"{name}-{split}-{n}" for n in range(size)]}
            )
            for split, size in (("train", train), ("test", test))
            if size
        }
    )


def streamed(data: DatasetDict) -> IterableDatasetDict:
    return IterableDatasetDict({name: part.to_iterable_dataset() for name, part in data.items()})


def test_without_weights_every_example_comes_once():
    mixed = mix_sources([source("a", 30), source("b", 3)])
    assert source_counts(mixed["train"]) == {"a": 30, "b": 3}
    assert source_counts(mixed["test"]) == {"a": 2, "b": 2}


def test_weights_hold_for_training_alone():
    mixed = mix_sources([source("a", 900), source("b", 100)], weights=[1, 3], seed=0)
    counts = source_counts(mixed["train"])
    assert 0.70 < counts["b"] / len(mixed["train"]) < 0.80
    assert len(set(mixed["train"]["id"])) == 1000  # none is left out
    assert source_counts(mixed["test"]) == {"a": 2, "b": 2}
    early = mix_sources([source("a", 900), source("b", 100)], [1, 3], stopping="first_exhausted")
    assert max(Counter(early["train"]["id"]).values()) == 1


def test_order_depends_on_the_seed_alone():
    parts = [source("a", 50), source("b", 50)]
    first, again, other = (
        mix_sources(parts, temperature=2, seed=seed)["train"]["id"][:] for seed in (1, 1, 2)
    )
    assert first == again != other


def test_streams_mix_like_sets_on_disk_and_lazily():
    parts = [source("a", 50), source("b", 20)]
    whole = mix_sources(parts, weights=[1, 1], seed=5)
    stream = mix_sources([streamed(part) for part in parts], weights=[1, 1], seed=5)
    assert [row["id"] for row in stream["test"]] == whole["test"]["id"][:]
    counts = Counter(row["source"] for row in stream["train"].take(40))
    assert 10 < counts["b"] < 30
    assert {row["id"] for row in stream["train"]} == set(whole["train"]["id"])

    read = []

    def note(row: dict) -> dict:
        read.append(row["id"])
        return row

    # With known columns, as those of build_examples are; otherwise first rows are looked at.
    noted = [
        IterableDatasetDict(
            {name: p.to_iterable_dataset().map(note, features=p.features) for name, p in d.items()}
        )
        for d in parts
    ]
    lazy = mix_sources(noted, weights=[1, 1], seed=5)
    assert read == []
    next(iter(lazy["train"]))
    assert 0 < len(read) < 10


def test_temperature():
    assert mixing_probabilities(2, temperature=1, sizes=[900, 100]) == pytest.approx([0.9, 0.1])
    assert mixing_probabilities(2, temperature=2, sizes=[900, 100]) == pytest.approx([0.75, 0.25])
    assert mixing_probabilities(2, temperature=1e9, sizes=[900, 100]) == pytest.approx([0.5, 0.5])


def test_splits_that_only_some_sources_have():
    mixed = mix_sources([source("a", 5, test=0), source("b", 5)])
    assert source_counts(mixed["test"]) == {"b": 2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": [1]}, "1 weights for 2 sources"),
        ({"weights": [1, 0]}, "Source 2 has the weight 0"),
        ({"temperature": 0}, "temperature=0"),
        ({"weights": [1, 1], "temperature": 2}, "give one of the two"),
        ({"weights": [1, 1], "stopping": "never"}, "stopping='never'"),
    ],
)
def test_settings_that_cannot_work(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        mix_sources([source("a", 5), source("b", 5)], **arguments)


def test_streams_and_their_limits():
    streams = [streamed(source("a", 5)), streamed(source("b", 5))]
    with pytest.raises(ValueError, match="pass sizes"):
        mix_sources(streams, temperature=2)
    assert len(list(mix_sources(streams, temperature=2, sizes=[5, 5])["train"])) >= 10
    with pytest.raises(ValueError, match="Some sources are streams"):
        mix_sources([source("a", 5), streams[1]])
    with pytest.raises(ValueError, match="no source"):
        mix_sources([])
    with pytest.raises(ValueError, match="Source 2 has no split 'train'"):
        mix_sources([source("a", 5), source("b", 0)], weights=[1, 1])
