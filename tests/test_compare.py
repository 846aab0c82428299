# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""A comparison from its file to the report: what is trained, gone on with, refused and left out."""

import contextlib
import importlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from test_finetune import TINY_MODEL
from test_qm9 import small_qm9  # noqa: F401  (a fixture)

from training import compare, comparison_run, prepare
from training.comparison import Variant, read_comparison
from training.loss_curves import compare_curves

ARMS = {
    "mora": {"controls": ["shuffled_molecule"]},
    "lora": {"method": "lora", "search": {"learning_rate": [1.0e-9, 0.01]}},
}


@pytest.fixture
def gaps(tmp_path: Path, tiny_base: Path, datasets_cache: Path, small_qm9: None) -> Path:  # noqa: F811
    """A comparison of two arms, of two steps each, on prepared data."""
    recipe = TINY_MODEL | {
        "base": str(tiny_base),
        "max_length": 150,
        "learning_rate": 1e-3,
        "per_device_train_batch_size": 2,
        "max_steps": 2,
        "save_steps": 1,
        "logging_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "output_dir": "not-used",
        "use_cpu": True,
        "prepared": str(tmp_path / "data"),
        "data": {
            "sources": [{"source": "qm9", "properties": ["gap"]}],
            "split": {"method": "random", "sizes": {"validation": 2, "test": 3}},
            "max_rejected": 0.1,
        },
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    prepare.main([str(path)])
    return write(tmp_path)


def write(folder: Path, arms: dict = ARMS) -> Path:
    path = folder / "gaps.yaml"
    content = {"recipe": str(folder / "recipe.yaml"), "tier": "cpu", "seeds": [0], "arms": arms}
    path.write_text(yaml.safe_dump(content | {"benchmark": {"max_new_tokens": 4}}))
    return path


def main(gaps: Path, *flags: str) -> int:
    folder = gaps.parent
    folders = ["--output_dir", str(folder / "runs"), "--results_dir", str(folder / "results")]
    return compare.main([str(gaps), *folders, *flags])


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands of a comparison, which run in this process, to save its many starts."""
    seen = []

    def run(command: list[str], stdout: io.TextIOBase | None = None, **kwargs: object) -> object:
        module, *arguments = command[2:]
        seen.append([module, *arguments])
        code = 0
        with contextlib.redirect_stdout(stdout or sys.stdout):
            try:
                code = importlib.import_module(module).main(arguments) or 0
            except SystemExit as error:
                print(error)
                code = 1
        return subprocess.CompletedProcess(command, code, stderr="it says why")

    monkeypatch.setattr(compare.subprocess, "run", run)
    return seen


def trained(commands: list[list[str]]) -> list[list[str]]:
    """For each training its arm, and the flags behind the recipe."""
    return [
        [Path(recipe).parts[-3], *flags]
        for module, recipe, *flags in commands
        if module == "training.finetune"
    ]


def check_outcome(folder: Path) -> None:
    """Results and report are there, of the learning rate that learns."""
    results = {path.name: json.loads(path.read_text()) for path in folder.glob("results/*/*.json")}
    assert sorted(results) == ["lora@learning_rate=0.01-seed-0.json", "mora-seed-0.json"]
    lora, mora = (results[name] for name in sorted(results))
    assert lora["method"] == "lora" and mora["method"] == "mora"
    losses = lora["comparison"]["search"]
    assert losses["lora@learning_rate=0.01"] < losses["lora@learning_rate=1e-09"]
    assert lora["comparison"]["recipe"]["learning_rate"] == 0.01
    assert mora["comparison"]["steps"] == 2 and mora["comparison"]["tier"] == "cpu"
    assert "shuffled_molecule" in {score["control"] for score in mora["scores"]}
    assert "shuffled_molecule" not in {score["control"] for score in lora["scores"]}
    report = folder / "results" / "gaps" / "report"
    assert "gaps, tier cpu" in (report / "report.md").read_text()
    for picture in ("loss.png", "eval_loss.png"):
        assert (report / picture).read_bytes().startswith(b"\x89PNG")
    page = (folder / "results" / "gaps" / "README.md").read_text()
    assert "| `mora` | **as it is: " in page
    assert "**learning_rate=0.01: " in page and "↳ shuffled molecule" in page
    assert "## property prediction, qm9, gap: mae, hartree, 3 rows" in page
    losses = page.partition("## property prediction, qm9: loss of the right answers, nats a token")
    first, other, shuffled = losses[2].splitlines()[4:7]
    assert first.startswith("| `lora` | ") and first.endswith("] |  |")
    assert other.startswith("| `mora` | ") and other.endswith("] |")
    assert shuffled.startswith("| ↳ shuffled molecule | ") and shuffled.endswith("] |  |")
    assert "answer_loss" in mora and "answer_loss" in lora
    gains = json.loads((report / compare.GAINS).read_text())
    (gain,) = gains["gains"]["mora"]
    runs = {"lora": ["lora@learning_rate=0.01-seed-0"], "mora": ["mora-seed-0"]}
    assert gains["ours"] == "lora" and gains["runs"] == runs
    assert gain["metric"] == "mae" and "property" in gain
    assert {one["than"] for one in gains["losses"][0]} == {None, "mora"}


@pytest.mark.slow
def test_processes_side_by_side(gaps: Path):
    """With a process for each command, two at a time."""
    assert main(gaps, "--parallel", "2", "--arms", "lora") == 0
    (result,) = gaps.parent.glob("results/*/*.json")
    assert result.name == "lora@learning_rate=0.01-seed-0.json"
    assert (gaps.parent / "results" / "gaps" / "report" / "report.md").exists()


def test_what_is_done_is_not_done_again(gaps: Path, commands: list[list[str]]):
    assert main(gaps) == 0
    check_outcome(gaps.parent)
    assert sorted(trained(commands)) == [
        ["lora@learning_rate=0.01"],
        ["lora@learning_rate=1e-09"],
        ["mora"],
    ]
    stale = gaps.parent / "results" / "gaps" / "report" / "9_property_prediction_size.png"
    stale.touch()
    commands.clear()
    assert main(gaps) == 0
    check_outcome(gaps.parent)
    assert not stale.exists()
    assert not trained(commands)
    assert [command[0] for command in commands] == [
        *["eval.benchmark", "eval.answer_loss"] * 2,
        "eval.report",
        "eval.relative_gain",
    ]


def test_an_arm_that_comes_later(gaps: Path, commands: list[list[str]]):
    """The others are compared with it as they were published; their models are gone."""
    assert main(gaps) == 0
    results = gaps.parent / "results" / "gaps"
    page = results / "README.md"
    written, before = page.read_text(), {p.name: p.read_bytes() for p in results.glob("*seed-0.*")}
    assert len(before) == 4
    shutil.rmtree(gaps.parent / "runs")
    page.unlink()
    commands.clear()
    (gaps.parent / "data").rename(gaps.parent / "away")
    assert main(gaps, "--published", "mora", "lora") == 0
    assert page.read_text() == written
    assert [command[0] for command in commands] == ["eval.report", "eval.relative_gain"]
    (gaps.parent / "away").rename(gaps.parent / "data")

    commands.clear()
    arms = ARMS | {"prefix": {"method": "graph_prefix"}}
    flags = ["--arms", "mora", "lora", "prefix", "--published", "mora", "lora"]
    assert main(write(gaps.parent, arms), *flags) == 0
    assert trained(commands) == [["prefix"]]
    after = {path.name: path.read_bytes() for path in results.glob("*seed-0.*")}
    assert before.items() < after.items() and len(after) == 6
    losses = page.read_text().partition("qm9: loss of the right answers")[2].splitlines()[4:8]
    names = [line.split("|")[1].strip() for line in losses]
    assert names == ["`mora`", "↳ shuffled molecule", "`lora`", "`prefix`"]
    assert all(line.endswith("] |") for line in losses[1:])  # paired differences


def test_a_seed_that_comes_later(gaps: Path, commands: list[list[str]]):
    """Only that one is trained, with what was chosen for the first."""
    assert main(gaps, "--arms", "lora") == 0
    shutil.rmtree(gaps.parent / "runs")
    gaps.write_text(yaml.safe_dump(yaml.safe_load(gaps.read_text()) | {"seeds": [0, 1]}))
    commands.clear()
    assert main(gaps, "--arms", "lora", "--published", "lora") == 0
    assert trained(commands) == [["lora@learning_rate=0.01"]]
    results = gaps.parent / "results" / "gaps"
    found = [json.loads(path.read_text()) for path in sorted(results.glob("*.json"))]
    assert [result["comparison"]["seed"] for result in found] == [0, 1]
    row = next(
        line for line in (results / "README.md").read_text().splitlines() if "| 0, 1 |" in line
    )
    assert "**learning_rate=0.01: " in row and "<br>" in row  # the first seed's search


def test_published_arms_that_are_others_now(
    gaps: Path, commands: list[list[str]], capsys: pytest.CaptureFixture
):
    assert main(gaps, "--arms", "lora@learning_rate=1e-09") == 0
    assert main(gaps, "--arms", "lora") == 0
    results = gaps.parent / "results" / "gaps"
    result = results / "lora@learning_rate=0.01-seed-0.json"
    answers = result.with_suffix(".tar.xz")
    other = results / "lora@learning_rate=1e-09-seed-0.tar.xz"
    lora, whole = "lora@learning_rate=0.01", yaml.safe_load(gaps.read_text())
    learned = {"method": "lora", "search": {"learning_rate": [0.01]}}
    both = f"{lora}, lora@learning_rate=1e-09"
    cases = [
        ("lora", {}, f"{results} holds those of {both}: name one in --arms and --published."),
        ("other", {"arms": {"other": {}}}, f"{results} holds none: train it."),
        (
            lora,
            {"arms": {"lora": learned | {"search": {"learning_rate": [0.1]}}}},
            f"results of {lora}, which the comparison does not have any more",
        ),
        (lora, {"arms": {"lora": learned | {"rank": 4}}}, f"{result} was trained", "(rank)"),
        (
            lora,
            {"arms": {"lora": learned | {"controls": ["no_string"]}}},
            f"{result} was scored otherwise than",
            "(no_string)",
        ),
        (lora, {"benchmark": {"max_new_tokens": 5}}, "was scored otherwise", "(max_new_tokens)"),
        (lora, {"seeds": [1]}, f"{result} is of seed 0, which the comparison does not have"),
    ]
    commands.clear()

    def check_refused(arm: str, *message: str) -> None:
        capsys.readouterr()
        assert main(gaps, "--arms", arm, "--published", arm) == 2
        printed = capsys.readouterr().err
        assert all(part in printed for part in message), printed

    for arm, change, *message in cases:
        gaps.write_text(yaml.safe_dump(whole | change))
        check_refused(arm, *message)
    gaps.write_text(yaml.safe_dump(whole))
    packed = answers.read_bytes()
    for content, message in [
        (other.read_bytes(), f"{answers} holds other answers than those that {result} is about"),
        (packed[: len(packed) // 2], f"{answers} is damaged"),
        (b"not packed", f"{answers} is damaged"),
    ]:
        answers.write_bytes(content)
        check_refused(lora, message)
    answers.unlink()
    check_refused(lora, f"{answers} is missing: without its answers")
    answers.write_bytes(packed)
    recipe = yaml.safe_load((gaps.parent / "recipe.yaml").read_text())
    recipe["data"]["split"]["seed"] = 5  # other molecules under the same name
    (gaps.parent / "again.yaml").write_text(yaml.safe_dump(recipe))
    prepare.main([str(gaps.parent / "again.yaml"), "--overwrite"])
    check_refused(lora, f"{result} was scored otherwise", "(rows)")
    assert not commands


def test_published_arms_are_among_the_arms(gaps: Path, capsys: pytest.CaptureFixture):
    assert main(gaps, "--published", "lora@learning_rate=0.01") == 2
    expected = "--published lora@learning_rate=0.01: is not one of the arms lora, mora."
    assert expected in capsys.readouterr().err


def test_two_variants_of_an_arm(gaps: Path, commands: list[list[str]]):
    """Each has its own difference to the first arm."""
    names = ["lora@learning_rate=1e-09", "lora@learning_rate=0.01"]
    assert main(gaps, "--arms", "mora", *names) == 0
    page = (gaps.parent / "results" / "gaps" / "README.md").read_text()
    rows = page.partition("qm9: loss of the right answers")[2].splitlines()[4:8]
    cells = {row.split("|")[1].strip(" `"): row.split("|")[2:4] for row in rows}
    loss, *_ = map(float, cells["mora"][0].split()[:1])
    for name in names:
        other, difference = (float(cell.split()[0]) for cell in cells[name])
        assert difference == pytest.approx(other - loss, abs=1.1e-4)
    assert cells[names[0]] != cells[names[1]]


def test_one_value_of_a_search(gaps: Path, commands: list[list[str]]):
    assert main(gaps, "--arms", *["lora@learning_rate=1e-09"] * 2) == 0  # named twice, run once
    assert trained(commands) == [["lora@learning_rate=1e-09"]]
    (path,) = gaps.parent.glob("results/gaps/*.json")
    assert path.name == "lora@learning_rate=1e-09-seed-0.json"
    assert list(json.loads(path.read_text())["comparison"]["search"]) == [
        "lora@learning_rate=1e-09"
    ]


def test_a_killed_training_is_gone_on_with(gaps: Path, commands: list[list[str]]):
    assert main(gaps, "--arms", "mora") == 0
    run = gaps.parent / "runs" / "gaps" / "mora" / "seed-0"
    whole = (run / "model.safetensors").read_bytes()
    # As after SIGKILL in the second step.
    shutil.rmtree(run / "checkpoint-2")
    shutil.rmtree(run / "benchmark")
    for name in ("trainer_state.json", "model.safetensors"):
        (run / name).unlink()
    commands.clear()
    assert main(gaps, "--arms", "mora") == 0
    assert trained(commands) == [["mora", "--resume_from_checkpoint", "true"]]
    assert f"Going on from {run / 'checkpoint-1'}" in (run / "train.log").read_text()
    assert (run / "model.safetensors").read_bytes() == whole
    # Its time is that of the second start alone, so none is given.
    page = (gaps.parent / "results" / "gaps" / "README.md").read_text()
    assert "| 0 | 2 | – |" in page


def test_changed_settings_are_refused(
    gaps: Path, commands: list[list[str]], capsys: pytest.CaptureFixture
):
    assert main(gaps, "--arms", "mora") == 0
    commands.clear()
    changed = write(gaps.parent, ARMS | {"mora": {"rank": 4}})
    assert main(changed, "--arms", "mora") == 2
    assert "holds a run with rank=2, now it is 4: delete that" in capsys.readouterr().err
    assert not commands


def test_only_arms_that_are_trained_are_checked(
    gaps: Path, commands: list[list[str]], capsys: pytest.CaptureFixture
):
    """Others need no graph encoder; where one is missing, no folder is left behind."""
    write(gaps.parent, ARMS | {"pretrained": {"graph_encoder": "nowhere"}})
    assert main(gaps, "--arms", "lora@learning_rate=0.01") == 0
    commands.clear()
    assert main(gaps, "--arms", "mora", "pretrained") == 2
    assert "error: gaps: arms.pretrained: graph_encoder" in capsys.readouterr().err
    assert not commands and not (gaps.parent / "runs" / "gaps" / "mora").exists()


def test_a_report_that_could_not_be_drawn_is_found_out_first(
    gaps: Path,
    commands: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    monkeypatch.setitem(sys.modules, "rdkit.Chem.Draw", None)
    for name in ("eval.report", "eval.report_page", "eval.plots.cases"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert main(gaps) == 2
    assert "apt install libxrender1 libxext6" in capsys.readouterr().err
    assert not commands


def test_nothing_is_trained_twice(
    gaps: Path, commands: list[list[str]], capsys: pytest.CaptureFixture
):
    assert main(gaps, "--arms", "mora", "lora", "lora@learning_rate=0.01") == 2
    assert "lora@learning_rate=0.01/seed-0 would be there twice" in capsys.readouterr().err
    assert not commands


def test_a_failing_arm_does_not_stop_the_others(
    gaps: Path, commands: list[list[str]], capsys: pytest.CaptureFixture
):
    # A guard stops it before its first step.
    broken = {"warmup_steps": 5, "lr_scheduler_type": "constant_with_warmup", "max_steps": 1}
    arms = {"broken": broken, "mora": {}}
    assert main(write(gaps.parent, arms)) == 1
    assert [path.name for path in gaps.parent.glob("results/*/*.json")] == ["mora-seed-0.json"]
    assert (gaps.parent / "results" / "gaps" / "report" / "report.md").exists()
    printed = " ".join(capsys.readouterr().out.split())
    assert "broken/seed-0: train ended with code 1: training.finetune: error: " in printed
    assert "error: broken/seed-0 has failed, see its logs in" in printed
    page = (gaps.parent / "results" / "gaps" / "README.md").read_text()
    assert "**Failed, and missing here**: broken/seed-0." in page and "gain of" not in page


def test_a_run_of_other_rows_or_tokens_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The others keep their differences, and our run its controls."""

    def scored(arm: str, more: float, data: str = "a", tokens: int = 2) -> compare.Run:
        run = compare.Run(Variant(arm, arm, {}, ()), 0, tmp_path / arm, {})
        run.losses.parent.mkdir(parents=True)
        run.losses.write_text(json.dumps({"run": {"dataset_sha256": data}}))
        asked = {"id": "m", "task": "molecule_qa", "source": "own", "property": None}
        rows = [
            {"row": row, "control": control, "nats": row + 1 + more + extra, "tokens": tokens}
            for control, extra in ((None, 0), ("no_string", 4))
            for row in range(3)
        ]
        lines = "".join(json.dumps(asked | row) + "\n" for row in rows)
        run.losses.with_suffix(".jsonl").write_text(lines)
        return run

    console = Console(width=200, file=io.StringIO())
    monkeypatch.setattr(comparison_run, "console", console)
    others = {
        "other_rows": scored("other_rows", 1, data="b"),
        "other_base": scored("other_base", 1, tokens=3),
        "lora": scored("lora", 1),
    }
    losses = compare.compare_losses(scored("mora", 0), others)
    found = {(one["control"], one["than"]): one["difference"] for one in losses}
    assert found[None, None] is None
    differences = {key: one["value"] for key, one in found.items() if one}
    assert differences == pytest.approx({("no_string", None): 2.0, (None, "lora"): 0.5})
    printed = console.file.getvalue()
    assert "other_rows/seed-0: no losses compared" in printed and "losses of other rows" in printed
    assert "other_base/seed-0: no losses compared" in printed and "3 tokens there" in printed


def test_ctrl_c_starts_no_further_runs(gaps: Path):
    comparison = read_comparison(gaps)
    run = compare.plan_run(comparison, comparison.arms["mora"][0], 0, gaps.parent / "runs")
    started = []

    def interrupted(run: compare.Run) -> None:
        started.append(run)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare.run_all(interrupted, [run] * 100, parallel=1)
    assert len(started) < 100


def test_long_names_stay_readable():
    names = ["mora/seed-0", "lora_same_parameters@learning_rate=0.001@rank=16/seed-12"]
    console = Console(width=80, file=io.StringIO())
    console.print(compare_curves({name: {100: 1.0, 200: 0.5} for name in names}))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 9  # the long name takes two
    assert any("1.00000" in line and "0.50000" in line for line in lines)
