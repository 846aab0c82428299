# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Steps of several arms, timed in turn."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from datasets import Dataset
from test_compare import (
    ARMS,
    gaps,  # noqa: F401  (a fixture)
    write,
)
from test_qm9 import small_qm9  # noqa: F401  (a fixture)

from training import step_speed


def test_ratios_to_the_first_arm(gaps: Path, capsys: pytest.CaptureFixture):  # noqa: F811
    assert step_speed.main([str(gaps), "--arms", "lora", "mora", "--repeats", "2"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert [row[1] for row in rows] == ["lora", "mora"]
    assert rows[0][5] == "1.000" and float(rows[1][5]) > 0
    assert not (gaps.parent / "run").exists()


def test_a_mistake_is_named(gaps: Path, capsys: pytest.CaptureFixture):  # noqa: F811
    assert step_speed.main([str(gaps), "--arms", "mroa"]) == 2
    assert "--arms mroa: use lora, mora" in capsys.readouterr().err
    write(gaps.parent, ARMS | {"pretrained": {"graph_encoder": "nowhere"}})
    assert step_speed.main([str(gaps), "--arms", "lora", "pretrained"]) == 2
    assert "error: gaps: arms.pretrained: graph_encoder" in capsys.readouterr().err


def test_a_step_learns(gaps: Path, monkeypatch: pytest.MonkeyPatch):  # noqa: F811
    comparison = step_speed.read_comparison(gaps)
    trainers = []
    make_trainer = step_speed.make_trainer
    monkeypatch.setattr(
        step_speed,
        "make_trainer",
        lambda *args: trainers.append(make_trainer(*args)) or trainers[0],
    )
    step = step_speed.make_step(comparison, comparison.variants_of("mora")[0])
    trained = [p for p in trainers[0].model.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in trained]
    step()
    assert any((p != old).any() for p, old in zip(trained, before, strict=True))
    assert all(p.grad is None for p in trained)


def test_batches_of_all_lengths(monkeypatch: pytest.MonkeyPatch):
    """Two thirds of the batches are short and one is long; their order does not matter."""
    monkeypatch.setattr(step_speed, "BATCHES", 3)
    lengths = [5, 9, 5, 5, 5, 5]
    trainer = SimpleNamespace(
        train_dataset=Dataset.from_dict({"length": lengths}),
        data_collator=lambda rows: [row["length"] for row in rows],
        get_train_dataloader=lambda: SimpleNamespace(batch_sampler=[[0, 1], [2, 3], [4, 5]]),
    )
    assert step_speed.pick_batches(trainer) == [[5, 5], [5, 5], [5, 9]]
    monkeypatch.setattr(step_speed, "BATCHES", 1)
    assert step_speed.pick_batches(trainer) == [[5, 5]]
