# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The command that times the metrics; never the times themselves."""

import json

import pytest

from eval import metric_speed
from eval.metrics.molecule_match import matching


def test_made_pairs_are_right_unreadable_and_wrong_in_every_run():
    predictions, references = metric_speed.make_pairs(300)
    assert (predictions, references) == metric_speed.make_pairs(300)
    rows = matching.score_rows(predictions, references)
    assert 0.05 < 1 - rows["valid"].mean() < 0.15
    assert 0.25 < rows["exact_match"].mean() < 0.4
    right = rows["exact_match"] == 1
    assert rows["levenshtein"][right].mean() > 1  # in another spelling
    with pytest.raises(ValueError, match="gives only .* pairs: pass --rows"):
        metric_speed.make_pairs(10**6)


def test_reactions_of_a_file(tmp_path, capsys):
    path = tmp_path / "pairs.jsonl"
    pairs = [("[C][C]", "[C][C]"), ("", "[C][O]"), ("[O]", "[C][O]")]
    path.write_text("".join(json.dumps({"prediction": p, "reference": r}) + "\n" for p, r in pairs))
    arguments = ["--pairs", str(path), "--notation", "selfies", "--policy", "published"]
    assert metric_speed.main([*arguments, "--rows", "2"]) == 0
    shown = capsys.readouterr().out
    assert "2 pairs, policy published" in shown
    assert "exact_match=1.0" in shown
    assert {"molecule_match", "fingerprint_similarity", "all"} <= set(shown.split())

    assert metric_speed.main([*arguments, "--rows", "4"]) == 2
    assert "gives only 3 pairs: pass --rows 3" in capsys.readouterr().err
    path.write_text('{"prediction": "C", "reference": "C"}\n{"prediction": "C"}\n')
    assert metric_speed.main([*arguments, "--rows", "2"]) == 2
    assert 'line 2: \'{"prediction": "C"}' in capsys.readouterr().err
    assert metric_speed.main(["--pairs", str(tmp_path / "none.jsonl")]) == 2
    assert "none.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--what", "captions"], ["--notation", "selfies"], ["--rows", "0"]]
)
def test_what_cannot_start_is_refused_at_once(arguments, capsys):
    with pytest.raises(SystemExit):
        metric_speed.parse_arguments(arguments)
    assert "give" in capsys.readouterr().err
