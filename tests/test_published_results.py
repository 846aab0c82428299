# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The published numbers: every entry is complete and plausible, and slips are named."""

from pathlib import Path

import pytest
import yaml

from eval.metric_names import METRICS, TASKS
from eval.published_results import (
    PUBLISHED_RESULTS,
    Entry,
    PublishedResultsError,
    read_published,
)

PAPERS = {
    "BioT5+",
    "MoRA",
    "UniMoT",
    "InstructMol",
    "LLaMo",
    "HIGHT",
    "PRESTO",
    "Mol-Instructions",
    "3D-MoLM",
}
GOOD = {
    "papers": {
        "a": {
            "name": "A",
            "citation": "Author, A, Venue 2026",
            "arxiv": "2601.00001",
            "code": "https://github.com/a/a",
        }
    },
    "entries": [
        {
            "model": "A-7B",
            "paper": "a",
            "base": "llm",
            "task": "retrosynthesis",
            "data": {"source": "mol_instructions", "split": "test"},
            "policy": "published",
            "table": "Table 1",
            "seen": "the paper",
            "verified": True,
            "metrics": {"exact_match": 0.4, "levenshtein": 12.3},
        }
    ],
}


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    return read_published()


def write(tmp_path: Path, **changes) -> Path:
    """A file with one good entry, in which some keys are changed or, for None, left out."""
    entry = {**GOOD["entries"][0], **changes}
    entry = {key: value for key, value in entry.items() if value is not None}
    path = tmp_path / "published.yaml"
    path.write_text(yaml.safe_dump({**GOOD, "entries": [entry]}))
    return path


def test_every_entry_has_a_citation_known_scores_and_plausible_values(entries: list[Entry]):
    assert {entry.paper.name for entry in entries} == PAPERS
    for entry in entries:
        assert len(entry.paper.citation) > 20
        assert entry.paper.url.startswith("https://arxiv.org/abs/2")
        assert entry.seen and entry.table
        assert entry.task in TASKS
        assert entry.metrics or entry.note
        for name, value in entry.metrics.items():
            assert METRICS[name].low <= value <= METRICS[name].high
            # Wider than any published value, so a slip of the decimal point shows.
            assert value < (100 if name == "levenshtein" else 0.02 if name == "mae" else 1.001)


def test_no_row_stands_there_twice(entries: list[Entry]):
    rows = [(e.model, e.task, e.source, e.property, e.mean_over) for e in entries]
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize(
    ("model", "task", "metric", "value"),
    [
        ("BioT5+", "forward_reaction_prediction", "exact_match", 0.864),
        ("BioT5+", "retrosynthesis", "exact_match", 0.642),
        ("BioT5+", "property_prediction", "mae", 0.0025),
        ("InstructMol-GS", "retrosynthesis", "exact_match", 0.407),
        ("LLaMo", "forward_reaction_prediction", "levenshtein", 6.162),
        ("Mol-Instructions (Llama-3-8B-Instruct)", "reagent_prediction", "exact_match", 0.101),
    ],
)
def test_numbers(entries: list[Entry], model: str, task: str, metric: str, value: float):
    found = [
        entry
        for entry in entries
        if (entry.model, entry.task) == (model, task) and not entry.property
    ]
    assert [entry.metrics[metric] for entry in found] == [value]


def test_what_was_not_seen_at_its_source_is_not_called_verified(entries: list[Entry]):
    for entry in entries:
        if entry.paper.name in ("BioT5+", "PRESTO", "HIGHT", "3D-MoLM", "MoRA", "UniMoT"):
            assert not entry.verified
        if "not seen" in entry.table:
            assert not entry.verified


def test_a_good_file_is_read(tmp_path: Path):
    [entry] = read_published(write(tmp_path, data={"source": "x", "split": "test", "n": 5}))
    assert (entry.source, entry.split, entry.n) == ("x", "test", 5)
    assert entry.metrics == {"exact_match": 0.4, "levenshtein": 12.3}
    assert (entry.property, entry.mean_over, entry.unit) == (None, (), None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mdoel": "x"}, r"unknown key 'mdoel': use model, paper"),
        ({"seen": None}, "lacks seen"),
        ({"seen": " "}, "seen is empty"),
        ({"verified": "yes"}, "verified is 'yes', not of type bool"),
        ({"task": "captioning"}, "task 'captioning' is unknown: use one of forward"),
        ({"paper": "b"}, "paper 'b' is unknown: use one of a"),
        ({"policy": "lenient"}, "policy 'lenient' is unknown: use one of strict, published"),
        ({"metrics": {"exact": 0.4}}, "score 'exact' is unknown: use one of exact_match"),
        ({"metrics": {"bleu": 40.7}}, "bleu is 40.7, which is not a number from 0 to 1"),
        ({"metrics": {"levenshtein": -1}}, "levenshtein is -1"),
        ({"metrics": {"bleu": True}}, "bleu is True"),
        ({"metrics": {"mae": float("nan")}}, "mae is nan"),
        ({"metrics": {}}, "has no values: say why in `note`"),
        ({"metrics": {}, "note": "x"}, "nothing can be verified"),
        ({"data": {"source": "x"}}, "data lacks split"),
        ({"data": {"source": "x", "split": "test", "rows": 3}}, "unknown key 'rows'"),
        ({"property": "gap", "mean_over": ["gap"]}, "`property` or `mean_over`, not both"),
    ],
)
def test_slips_are_named(tmp_path: Path, changes: dict, message: str):
    path = write(tmp_path, **changes)
    with pytest.raises(PublishedResultsError, match=message) as caught:
        read_published(path)
    assert str(path) in str(caught.value)
    assert "entry 1" in str(caught.value)


def test_a_broken_file_is_named(tmp_path: Path):
    path = tmp_path / "published.yaml"
    path.write_text("papers: [")
    with pytest.raises(PublishedResultsError, match="is no YAML"):
        read_published(path)
    paper = {**GOOD["papers"]["a"], "arxiv": "cs/0001"}
    path.write_text(yaml.safe_dump({"papers": {"a": paper}, "entries": []}))
    with pytest.raises(PublishedResultsError, match=r"papers\.a: arxiv 'cs/0001'"):
        read_published(path)


def test_the_file_lies_beside_its_reader():
    assert PUBLISHED_RESULTS.is_file()
