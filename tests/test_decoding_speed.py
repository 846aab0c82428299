# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The decoding benchmark runs, and times what it says."""

from contextlib import contextmanager

import pytest

from eval import decoding_speed


def test_every_arm_is_run_in_its_context_and_the_first_turn_is_not_counted():
    events = []

    @contextmanager
    def context():
        events.append("enter")
        yield
        events.append("exit")

    arms = {
        "a": decoding_speed.Arm(lambda: events.append("a")),
        "b": decoding_speed.Arm(lambda: events.append("b"), context=context),
    }
    seconds = decoding_speed.time_in_turn(arms, repeats=2)
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}
    in_context = ["enter", "b", "exit"]
    assert events == ["a", *in_context, *in_context, "a", "a", *in_context]


def test_command(make_model, processor, tmp_path, capsys):
    make_model().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    flags = ["--model", str(tmp_path), "--new_tokens", "3", "--repeats", "1", "--batch_size", "2"]
    assert decoding_speed.main(flags) == 0
    table = capsys.readouterr().out
    for arm in ("base model", "merged", "a weight set per row"):
        assert arm in table
    assert decoding_speed.main(["--model", str(tmp_path / "none")]) == 2
    with pytest.raises(SystemExit):
        decoding_speed.main(["--model", str(tmp_path), "--repeats", "0"])
