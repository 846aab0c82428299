# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Law 6: an exported LoRA adapter, loaded by PEFT, gives the logits of the model."""

import csv
import json
import warnings
from pathlib import Path

import pytest
import torch
from conftest import LINEAR_MODULES, MOLECULES
from peft import PeftModel
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    Phi3Config,
)

from modeling_mora import export_mora
from modeling_mora.export_mora import export_lora, export_loras, main

FORMS = [{}, {"core_dim": 12, "alpha": 7}, {"generator_type": "dense"}]
TEXTS = ["What is the gap?", "Why?"]


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS, ids=["core", "core_dim", "dense"])
@pytest.mark.parametrize("molecule", ["CCO", "c1ccccc1O"])
def test_peft_gives_the_same_logits(make_model, processor, tiny_base, tmp_path, form, molecule):
    model = make_model(**form)
    export_lora(model, molecule, tmp_path)
    base = AutoModelForCausalLM.from_pretrained(tiny_base)
    lora = PeftModel.from_pretrained(base, tmp_path)
    inputs = processor(text=TEXTS, molecules=[molecule] * 2, return_tensors="pt", padding=True)
    text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    expected = model(**inputs).logits
    torch.testing.assert_close(lora(**text).logits, expected, atol=1e-5, rtol=1e-5)
    with model.disable_adapter():
        assert (model(**text).logits - expected).abs().max() > 1e-2


# Combined and transposed weights, heads wider than the model, norms of queries and keys.
FAMILIES = {
    "gpt2": (GPT2Config, {}, ["c_attn", "c_fc", "c_proj"]),
    "gpt_neox": (
        GPTNeoXConfig,
        {},
        ["dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value"],
    ),
    "phi3": (Phi3Config, {}, ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]),
    "gemma3_text": (
        Gemma3TextConfig,
        {"num_key_value_heads": 1, "head_dim": 32, "sliding_window": 4},
        sorted(LINEAR_MODULES),
    ),
}


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_families(make_model, processor, tmp_path, tokenizer, family):
    config_class, settings, last_names = FAMILIES[family]
    base_config = config_class(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        initializer_range=0.1,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **settings,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(base_config).save_pretrained(tmp_path / "base")
    model = make_model(base=tmp_path / "base", target_modules="all-linear")
    export_lora(model, "CCO", tmp_path / "lora")
    with warnings.catch_warnings():
        # PEFT mends a wrong fan_in_fan_out, with a warning.
        warnings.filterwarnings("error", message=".*fan_in_fan_out.*")
        base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
        lora = PeftModel.from_pretrained(base, tmp_path / "lora")
    inputs = processor(text=TEXTS, molecules=["CCO"] * 2, return_tensors="pt", padding=True)
    text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    expected = model(**inputs).logits
    error = (lora(**text).logits - expected).abs().max() / expected.abs().max()
    assert error < 1e-5
    with model.disable_adapter():
        assert (model(**text).logits - expected).abs().max() > 1e-2
    written = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert written["fan_in_fan_out"] == (family == "gpt2")
    assert written["target_modules"] == last_names


@pytest.mark.parametrize(
    ("settings", "target_modules", "layers"),
    [
        ({"target_modules": ["q_proj", "v_proj"]}, ["q_proj", "v_proj"], None),
        ({"target_modules": "all-linear"}, sorted(LINEAR_MODULES), None),
        ({"target_modules": ["o_proj"], "layers_to_transform": [0, 2]}, ["o_proj"], [0, 2]),
        ({"target_modules": ["o_proj"], "layer_stride": 2}, ["o_proj"], [1]),
        (
            {"target_modules": r".*(0\.self_attn\.q_proj|1\.mlp\.up_proj)"},
            ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj"],
            None,
        ),
    ],
)
def test_config_is_what_engines_expect(
    make_model, tiny_base, tmp_path, settings, target_modules, layers
):
    """Last names where they say it all, whole paths only where nothing else does."""
    model = make_model(**settings)
    export_lora(model, "CCO", tmp_path)
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert written["target_modules"] == target_modules
    assert written["layers_to_transform"] == layers
    assert written["lora_alpha"] == 4 and isinstance(written["lora_alpha"], int)
    assert written["base_model_name_or_path"] == str(tiny_base)
    lora = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_base), tmp_path)
    assert set(lora.targeted_module_names) == {target.name for target in model.tuner.targets}


def test_a_base_without_a_name(make_model, tiny_base, tmp_path):
    model = make_model()
    model.config.base_model_name_or_path = None
    export_lora(model, "CCO", tmp_path)
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_base), tmp_path)


@pytest.mark.parametrize("export", [export_lora, export_loras])
def test_mlp_target_is_a_clear_error(make_model, tmp_path, monkeypatch, export):
    model = make_model(target_modules=["q_proj", "mlp"])
    monkeypatch.setattr(model, "encode_molecules", None)
    molecules = "CCO" if export is export_lora else ["CCO"]
    with pytest.raises(ValueError, match=r"layers\.0\.mlp is adapted as a whole"):
        export(model, molecules, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def checkpoint(make_model, processor, tmp_path) -> str:
    make_model().save_pretrained(tmp_path / "mora")
    processor.save_pretrained(tmp_path / "mora")
    return str(tmp_path / "mora")


def test_command(checkpoint, tmp_path, capsys):
    model, out = checkpoint, str(tmp_path / "lora")
    assert main(["--model", model, "--molecule", "CCO", "--out", out]) == 0
    assert {path.name for path in (tmp_path / "lora").iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert main(["--model", model, "--molecule", "C(C", "--out", out]) == 2
    assert "C(C" in capsys.readouterr().err


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_many_equal_one_by_one(make_model, tmp_path):
    """Each of the adapters holds the numbers of its own molecule."""
    model = make_model(graph_config={"form": "moleculestm", "hidden_size": 32, "num_layers": 3})
    model.train()  # as after training: BatchNorm must not mix the molecules
    assert export_loras(model, MOLECULES, tmp_path / "many", batch_size=5) == len(MOLECULES)
    assert model.training
    previous = None
    for number, molecule in enumerate(MOLECULES, start=1):
        many, one = tmp_path / "many" / f"{number:05d}", tmp_path / f"one{number}"
        export_lora(model, molecule, one)
        assert files_in(many).keys() == files_in(one).keys()
        name = "adapter_config.json"
        assert (many / name).read_text() == (one / name).read_text()
        tensors = load_file(many / "adapter_model.safetensors")
        torch.testing.assert_close(tensors, load_file(one / "adapter_model.safetensors"))
        a = tensors["base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"]
        assert previous is None or not torch.allclose(a, previous, atol=1e-5)
        previous = a


def test_command_with_a_file(checkpoint, tmp_path, monkeypatch, capsys):
    molecules, out = tmp_path / "molecules.smi", tmp_path / "out"
    molecules.write_text("smiles name\nOCC ../eth/anol\n\nc1ccccc1\nCCO\n")
    command = ["--model", checkpoint, "--molecules", str(molecules), "--out", str(out)]
    assert main(command) == 0
    assert "Wrote 3 LoRA adapters" in capsys.readouterr().out
    with (out / "adapters.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["folder", "line", "name", "molecule", "smiles"],
            ["00001", "2", "../eth/anol", "OCC", "CCO"],
            ["00002", "4", "", "c1ccccc1", "c1ccccc1"],
            ["00003", "5", "", "CCO", "CCO"],
        ]
    assert {path.name for path in out.iterdir()} == {
        *("00001", "00002", "00003"),
        *("adapters.csv", "export.json"),
    }
    before = files_in(out)
    assert main(command) == 0
    assert "Wrote 0 LoRA adapters" in capsys.readouterr().out
    assert files_in(out) == before
    # Other molecules into the same folder: seen before the model is loaded.
    monkeypatch.setattr(export_mora, "MoraForCausalLM", None)
    molecules.write_text("OCC ../eth/anol\n")
    assert main(command) == 2
    assert "was begun for other molecules" in capsys.readouterr().err
    assert files_in(out) == before


def test_bad_lines_stop_before_the_model_is_loaded(tmp_path, processor, monkeypatch, capsys):
    processor.save_pretrained(tmp_path / "mora")
    monkeypatch.setattr(export_mora, "MoraForCausalLM", None)
    (tmp_path / "molecules.smi").write_text("CCO\nC(C\nC\nxyz\n")
    command = ["--model", str(tmp_path / "mora"), "--out", str(tmp_path / "out")]
    assert main([*command, "--molecules", str(tmp_path / "molecules.smi")]) == 2
    error = capsys.readouterr().err
    assert "line 2: Molecule 'C(C'" in error and "line 4: Molecule 'xyz'" in error
    assert not (tmp_path / "out").exists()
    for wrong in ([], ["--molecule", "C", "--molecules", "file"]):
        with pytest.raises(SystemExit, match="2"):
            main([*command, *wrong])


@pytest.mark.parametrize("files_before_kill", range(8))
def test_a_killed_run_is_finished(make_model, tmp_path, monkeypatch, files_before_kill):
    """Killed while any file is written, half of it there: repeated, all files are the same."""
    model = make_model()
    molecules = ["C", "CCO", "c1ccccc1"]
    export_loras(model, molecules, tmp_path / "whole", batch_size=2)
    expected = files_in(tmp_path / "whole")

    written = 0
    originals = {"save_file": export_mora.save_file, "_write_text": export_mora._write_text}

    def kill_at(name):
        def write(*args, **kwargs):
            nonlocal written
            if written == files_before_kill:
                # As a real kill does it: safetensors writes to a temporary file first.
                path = f"{args[0]}.unfinished" if name != "save_file" else args[1].with_name(".tmp")
                Path(path).write_text("half")
                raise KeyboardInterrupt
            written += 1
            originals[name](*args, **kwargs)

        return write

    killed = tmp_path / "killed"
    with monkeypatch.context() as patch:
        for name in originals:
            patch.setattr(export_mora, name, kill_at(name))
        if files_before_kill < len(molecules) + 2:
            with pytest.raises(KeyboardInterrupt):
                export_loras(model, molecules, killed, batch_size=2)
        else:
            export_loras(model, molecules, killed, batch_size=2)
    finished = [path for path in killed.iterdir() if path.is_dir() and path.suffix == ""]
    assert len(finished) == min(max(files_before_kill - 1, 0), len(molecules))
    assert export_loras(model, molecules, killed, batch_size=2) == len(molecules) - len(finished)
    assert files_in(killed) == expected


def test_a_folder_that_holds_something_else_is_refused(make_model, tmp_path, monkeypatch):
    model = make_model()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds other files \(notes\.txt\)"):
        export_loras(model, ["C"], tmp_path)
    with pytest.raises(FileExistsError, match="is a file"):
        export_loras(model, ["C"], tmp_path / "notes.txt")
    out = tmp_path / "out"
    out.mkdir()  # an empty one will do
    export_loras(model, ["C"], out)
    before = files_in(out)
    monkeypatch.setattr(model, "encode_molecules", None)
    assert export_loras(model, ["C"], out) == 0  # what is finished is not encoded again
    with pytest.raises(FileExistsError, match="begun for other molecules"):
        export_loras(model, ["CC"], out)
    with torch.no_grad():
        next(model.tuner.parameters()).add_(1e-3)
    with pytest.raises(FileExistsError, match="begun with another model"):
        export_loras(model, ["C"], out)
    assert files_in(out) == before


def test_one_molecule_is_no_list(make_model, tmp_path):
    """A string would be taken letter by letter."""
    with pytest.raises(ValueError, match="'CCO' is one molecule"):
        export_loras(make_model(), "CCO", tmp_path / "out")
    with pytest.raises(ValueError, match="None is no molecule"):
        export_lora(make_model(), None, tmp_path / "out")


def test_a_generator_of_molecules(make_model, tmp_path):
    assert export_loras(make_model(), iter(["CCO", "C"]), tmp_path / "out") == 2
    assert (tmp_path / "out" / "adapters.csv").read_text().splitlines()[1].endswith("CCO,CCO")


def test_an_adapter_is_not_overwritten(make_model, tmp_path):
    model = make_model()
    export_lora(model, "CCO", tmp_path / "lora")
    with pytest.raises(FileExistsError, match="lora holds something: name a folder that is new"):
        export_lora(model, "C", tmp_path / "lora")
