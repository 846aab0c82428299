# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: F811  (fixtures are imported, and named again as arguments)
"""The benchmark command started again: after kills, on several processes, for another model."""

import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from test_benchmark import (  # noqa: F401  (some are fixtures)
    CONTROLS,
    TINY,
    checkpoint,
    prepared,
    read_lines,
    results_of,
    run,
    scripted,
)
from test_qm9 import small_qm9  # noqa: F401  (a fixture)

from eval import asking
from modeling_mora import MoraForCausalLM

pytestmark = pytest.mark.usefixtures("small_qm9")


def test_a_second_start_asks_only_for_what_is_missing(checkpoint: Path, scripted: list):
    assert run(checkpoint) == 0
    assert len(scripted) == 6
    folder = checkpoint / "benchmark"
    final = (folder / "predictions.jsonl").read_text()

    scripted.clear()
    assert run(checkpoint) == 0
    assert scripted == []
    assert results_of(folder)["answers_reused"] == 6
    assert (folder / "predictions.jsonl").read_text() == final

    # A control that comes later; what was asked before is kept.
    assert run(checkpoint, "--controls", "base_model") == 0
    assert [adapter for *_, adapter in scripted] == [False] * 6
    assert (folder / "predictions.jsonl").read_text().startswith(final)
    scripted.clear()
    assert run(checkpoint) == 0
    assert scripted == []
    assert {e["control"] for e in results_of(folder)["scores"]} == {
        *(None, "base_model", "training_mean")
    }


def test_answers_are_kept_when_the_run_is_interrupted(
    checkpoint: Path, scripted: list, monkeypatch: pytest.MonkeyPatch
):
    answer = asking.answer_batch

    def interrupted(*args, **kwargs):
        if scripted:
            raise KeyboardInterrupt
        return answer(*args, **kwargs)

    monkeypatch.setattr(asking, "answer_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint)
    assert len(read_lines(checkpoint / "benchmark" / "answers-00000.jsonl")) == 2


def test_a_batch_that_was_answered_in_part_is_asked_as_a_whole(checkpoint: Path, scripted: list):
    assert run(checkpoint) == 0
    path = checkpoint / "benchmark" / "predictions.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    scripted.clear()
    assert run(checkpoint) == 0
    assert len(scripted) == 2
    assert path.read_text() == "".join(lines)


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "kills"), [(1, 5), (2, 2)])
def test_killed_at_any_moment_it_ends_with_the_same_file(
    checkpoint: Path, prepared: Path, tmp_path: Path, processes: int, kills: int
):
    flags = ["--data", str(prepared), "--batch_size", "1", "--max_new_tokens", "24"]
    flags += ["--controls", CONTROLS]
    # Left alone, and in this process.
    assert run(checkpoint, *flags, "--output_dir", str(tmp_path / "whole")) == 0
    whole = (tmp_path / "whole" / "predictions.jsonl").read_bytes()
    launch = [sys.executable]
    if processes > 1:
        launch += ["-m", "torch.distributed.run", "--standalone"]
        launch += ["--nproc-per-node", str(processes)]
    folder = tmp_path / "killed"
    command = [*launch, "-m", "eval.benchmark", "--model", str(checkpoint), *flags]
    command += ["--output_dir", str(folder)]

    def start() -> psutil.Popen:
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        log = (tmp_path / "log").open("wb")
        return psutil.Popen(command, env=environment, stdout=log, stderr=log)

    def answers() -> int:
        return sum(path.read_bytes().count(b"\n") for path in folder.glob("*.jsonl"))

    order = random.Random(0)
    for _ in range(kills):
        process = start()
        enough = answers() + order.randint(1, 12)
        while process.poll() is None and answers() < enough:
            time.sleep(0.005)
        assert process.poll() is None, (tmp_path / "log").read_text()[-3000:]
        # Workers of a launcher are in sessions of their own.
        for victim in (*process.children(recursive=True), process):
            victim.kill()
        process.wait()
    assert not (folder / "predictions.jsonl").exists()
    assert start().wait() == 0, (tmp_path / "log").read_text()[-3000:]
    assert (folder / "predictions.jsonl").read_bytes() == whole
    assert results_of(folder)["processes"] == processes
    assert 0 < results_of(folder)["answers_reused"] < 92


def test_answers_of_another_model_are_refused(
    checkpoint: Path,
    scripted: list,
    make_model: Callable[..., MoraForCausalLM],
    capsys: pytest.CaptureFixture[str],
):
    assert run(checkpoint) == 0
    before = (checkpoint / "benchmark" / "predictions.jsonl").read_text()
    other = make_model(**TINY)
    next(iter(other.tuner.deltas.values())).B.data.mul_(2)
    other.save_pretrained(checkpoint)
    assert run(checkpoint) == 2
    error = capsys.readouterr().err
    assert "another run" in error
    assert "adapter_sha256" in error
    assert "--output_dir" in error
    assert (checkpoint / "benchmark" / "predictions.jsonl").read_text() == before


@pytest.mark.parametrize(
    "flags",
    [
        ("--max_examples", "2"),
        ("--batch_size", "3"),
        ("--dtype", "bfloat16"),
        ("--numbers", "median"),
    ],
)
def test_answers_to_other_questions_are_refused(
    checkpoint: Path, scripted: list, capsys: pytest.CaptureFixture[str], flags: tuple[str, str]
):
    assert run(checkpoint) == 0
    assert run(checkpoint, *flags) == 2
    assert "another run" in capsys.readouterr().err
