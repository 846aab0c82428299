# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The predict command."""

from collections.abc import Callable
from pathlib import Path

import pytest

from eval import predict
from eval.generation import Answer
from modeling_mora import MoraForCausalLM, MoraProcessor


@pytest.fixture
def checkpoint(
    tmp_path: Path, make_model: Callable[..., MoraForCausalLM], processor: MoraProcessor
) -> Path:
    make_model(target_modules=["q_proj"]).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> dict:
    """The model's answers, settable, instead of a random model's; holds what was asked."""
    script = {"answers": []}

    def answer(model, processor, **kwargs):
        script.update(kwargs)
        return script["answers"]

    monkeypatch.setattr(predict, "load_model", lambda name: None)
    monkeypatch.setattr(predict, "generate_answers", answer)
    return script


def run(checkpoint: Path, *arguments: str) -> int:
    return predict.main(["--model", str(checkpoint), "--property", "gap", *arguments])


def test_a_saved_model_answers(checkpoint: Path, capsys: pytest.CaptureFixture[str]):
    assert run(checkpoint, "CCO", "c1ccccc1") == 0
    printed = capsys.readouterr().out
    assert "CCO" in printed
    assert "c1ccccc1" in printed


@pytest.mark.parametrize(
    ("flags", "numbers"), [([], "greedy"), (["--numbers", "median"], "median")]
)
def test_which_number_is_the_answer(
    checkpoint: Path, scripted: dict, flags: list[str], numbers: str
):
    scripted["answers"] = [Answer("0.2471", True)]
    assert run(checkpoint, *flags, "CCO") == 0
    assert scripted["numbers"] == numbers


def test_hartree_and_electronvolts_are_printed(
    checkpoint: Path, scripted: dict, capsys: pytest.CaptureFixture[str]
):
    scripted["answers"] = [Answer("0.2471", True), Answer("no idea", True), Answer("0.3", False)]
    assert run(checkpoint, "CCO", "C", "CC") == 0
    lines = capsys.readouterr().out.splitlines()
    ethanol = next(line for line in lines if "CCO" in line)
    assert "0.2471" in ethanol
    assert "6.724" in ethanol
    assert any("no number: 'no idea'" in line for line in lines)
    # Cut off, so it may be half a number.
    assert any("no number: '0.3'" in line for line in lines)


def test_the_question_holds_canonical_smiles_and_the_table_what_was_typed(
    checkpoint: Path, scripted: dict, capsys: pytest.CaptureFixture[str]
):
    scripted["answers"] = [Answer("0.1000", True)] * 3
    typed = ["OCC", "C1=CC=C[nH]1", "InChI=1S/CH4/h1H4"]
    assert run(checkpoint, *typed) == 0
    assert scripted["molecules"] == ["CCO", "c1cc[nH]c1", "C"]
    for smiles, prompt in zip(scripted["molecules"], scripted["prompts"], strict=True):
        assert f" {smiles} " in prompt
    printed = capsys.readouterr().out
    for molecule in typed:
        assert molecule in printed


def test_a_bad_molecule_is_one_line_before_the_model_is_loaded(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(predict, "load_model", lambda name: pytest.fail("the model was loaded"))
    assert run(checkpoint, "CCO", "c1ccccc", "C*") == 2
    output = capsys.readouterr()
    assert output.out == ""
    lines = output.err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("error: ") for line in lines)
    assert "c1ccccc" in lines[0]
    assert "C*" in lines[1]


@pytest.mark.parametrize(
    ("flag", "value"), [("--property", "dipole"), ("--task", "poetry"), ("--model", "no/such/dir")]
)
def test_an_unknown_name_is_one_clear_error(
    checkpoint: Path, flag: str, value: str, capsys: pytest.CaptureFixture[str]
):
    assert run(checkpoint, "CCO", flag, value) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert value in error


def test_a_plain_llm_is_a_clear_error(tiny_base: Path, capsys: pytest.CaptureFixture[str]):
    assert run(tiny_base, "CCO") == 2
    assert "is a llama model, not a MoRA checkpoint" in capsys.readouterr().err


def test_a_property_of_ones_own_is_shown_in_its_unit(
    checkpoint: Path, processor: MoraProcessor, scripted: dict, capsys: pytest.CaptureFixture[str]
):
    logs = {"description": "solubility", "unit": "log(mol/L)", "decimals": 2}
    trained = MoraProcessor(
        processor.feature_extractor,
        processor.tokenizer,
        tasks={"property_prediction": {"properties": {"logS": logs}}},
    )
    trained.save_pretrained(checkpoint)
    scripted["answers"] = [Answer("-3.46", True), Answer("-3.46 eV", True)]
    flags = ["--model", str(checkpoint), "--property", "logS"]
    assert predict.main([*flags, "CCO", "CCC"]) == 0
    printed = capsys.readouterr().out
    assert "log(mol/L)" in printed and "eV │" not in printed and "hartree" not in printed
    assert "-3.46 " in printed and "no number: '-3.46 eV'" in printed
    assert scripted["prompts"][0] == "solubility of CCO in log(mol/L)?"
    assert predict.main([*flags[:3], "gap", "CCO"]) == 2
    assert "use one of logS" in capsys.readouterr().err


def test_a_task_without_numbers_is_a_clear_error(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
):
    assert run(checkpoint, "CCO", "--task", "molecule_captioning") == 2
    assert "molecule_captioning is no property" in capsys.readouterr().err
