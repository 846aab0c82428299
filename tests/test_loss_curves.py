# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The command that draws and compares the loss curves of several runs."""

import json
from pathlib import Path

import pytest

from training import loss_curves
from training.loss_curves import differences, draw_learning, main, read_curve


def write_run(folder: Path, losses: dict[int, float]) -> Path:
    folder.mkdir()
    history = [{"step": step, "epoch": 0.1, "loss": loss} for step, loss in losses.items()]
    history += [{"step": 2, "eval_loss": 7.0}, {"step": 3, "train_loss": 1.0}]
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    return folder


def test_curves_are_compared_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture):
    one = write_run(tmp_path / "one", {1: 3.0, 2: 2.0, 3: 1.5})
    two = write_run(tmp_path / "two", {2: 2.0625, 3: 1.5})
    main([f"1 process={one}", f"ZeRO-3={two}", "--output", str(tmp_path / "curves.png")])
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if "ZeRO-3" in line)
    assert row.split() == ["ZeRO-3", "2", "2.06250", "1.50000", "6.25e-02", "2"]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_each_of_many_curves_looks_its_own_way(monkeypatch: pytest.MonkeyPatch):
    figures = []
    monkeypatch.setattr(loss_curves, "save", lambda figure, path: figures.append(figure))
    curves = {f"arm {i}": {10: 1.0, 20: 0.5 + i / 20} for i in range(12)}
    draw_learning(curves, "loss", "Training loss", Path("loss.png"))
    lines = figures[0].axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(curves)


def test_only_steps_of_both_runs_are_compared(tmp_path: Path):
    one = read_curve(write_run(tmp_path / "one", {1: 3.0, 2: 2.0}))
    assert differences(one, {2: 1.5, 4: 1.0}) == {2: 0.5}
    assert read_curve(tmp_path / "one", "eval_loss") == {2: 7.0}


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (["{one}"], "give each run as NAME=FOLDER"),
        (["a={one}", "a={one}"], "with a name of its own"),
        (["a={one}/nothing"], "No such file"),
        (["a={one}", "--metric", "los"], "holds no 'los', only eval_loss, loss, train_loss"),
    ],
)
def test_what_cannot_be_drawn(tmp_path: Path, runs: list[str], message: str):
    write_run(tmp_path / "one", {1: 3.0})
    with pytest.raises(SystemExit, match=message):
        main([run.format(one=tmp_path / "one") for run in runs])
