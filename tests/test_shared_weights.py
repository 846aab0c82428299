# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The counter-example: one weight set for all molecules of a batch."""

import json
from pathlib import Path

import pytest
import torch
from test_qm9 import small_qm9  # noqa: F401  (a fixture)

from eval import shared_weights
from eval.generation import Answer
from modeling_mora.tasks_mora import get_task

ROWS = [
    {"property": "gap", "prompt": f"Q {i}", "molecule": molecule, "answer": "0.2500"}
    for i, molecule in enumerate(["CCO", "C", "c1ccccc1"])
]


@pytest.mark.parametrize(
    ("molecules_per_batch", "graphs"),
    [
        (1, ["CCO", "C", "c1ccccc1"]),
        (2, ["CCO.C", "CCO.C", "c1ccccc1"]),
        (16, ["CCO.C.c1ccccc1"] * 3),
    ],
)
def test_rows_of_a_batch_are_asked_with_all_its_molecules(
    monkeypatch: pytest.MonkeyPatch, molecules_per_batch: int, graphs: list[str]
):
    asked = []

    def answer(model, processor, prompts, molecules, *args, **kwargs):
        asked.extend(zip(prompts, molecules, strict=True))
        return [Answer("0.2000", finished=True) for _ in prompts]

    monkeypatch.setattr(shared_weights, "generate_answers", answer)
    score = shared_weights.score_shared(
        ROWS, get_task("property_prediction"), None, None, 8, molecules_per_batch
    )
    assert asked == list(zip(["Q 0", "Q 1", "Q 2"], graphs, strict=True))
    assert (score["n"]["value"], score["mae"]["value"]) == (3, pytest.approx(0.05))


@torch.no_grad()
def test_joined_graph_is_what_the_published_code_computes(make_model, processor):
    """One weight set from the atom states of all molecules, each encoded for itself."""
    model = make_model()
    graph = processor.feature_extractor(["CCO", "c1ccccc1"], return_tensors="pt")
    states, mask = model.graph_encoder(**graph), graph["graph_atom_mask"]
    expected = model.weight_generator(states[mask][None], mask[mask][None])
    joined = processor.feature_extractor(["CCO.c1ccccc1"], return_tensors="pt")
    torch.testing.assert_close(model.encode_molecules(**joined), expected, atol=1e-5, rtol=1e-5)


def test_command(
    small_qm9,  # noqa: F811
    make_model,
    processor,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    make_model(rank=2, target_modules=["q_proj"]).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    data = {"properties": ["gap"], "train": 8, "validation": 1, "test": 3, "seed": 0}
    (tmp_path / "data.json").write_text(json.dumps(data))
    assert shared_weights.main(["--model", str(tmp_path), "--max_examples", "2"]) == 0
    table = capsys.readouterr().out
    assert "molecules per weight set" in table and "predict the mean" in table
    assert shared_weights.main(["--model", str(tmp_path / "none")]) == 2
