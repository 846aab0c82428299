# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Models without graphs behind MoRA's interface, and telling checkpoints apart."""

from pathlib import Path

import pytest
import torch
from bases import random_base
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedModel

from eval import decoding_speed, shared_weights
from eval.generation import load_model, method_of
from eval.text_only import TextOnlyModel
from modeling_mora import MoraProcessor
from training.arguments import ModelArguments
from training.methods.models import make_model


@pytest.fixture
def base(tokenizer, tmp_path: Path) -> Path:
    """A base of one's own, which a test may take away."""
    random_base("llama", tokenizer).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def trained(base: Path) -> PreTrainedModel:
    """As if full fine-tuning had changed one matrix."""
    model = make_model(ModelArguments(method="full_finetune", base=str(base)))
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.mul_(2)
    return model.eval()


@pytest.fixture
def inputs(processor: MoraProcessor) -> dict:
    return dict(processor(text=["Gap?", "Why?"], molecules=["CCO", None], return_tensors="pt"))


@torch.inference_mode()
def test_the_base_of_a_fully_fine_tuned_model_is_loaded_once(
    trained: PreTrainedModel, base: Path, inputs: dict
):
    model = TextOnlyModel(trained)
    names = set(model.state_dict())
    before = model(**inputs).logits
    with model.disable_adapter():
        alone = model(**inputs).logits
        assert model.config.base_model_name_or_path == str(base)
    text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    expected = AutoModelForCausalLM.from_pretrained(base).eval()(**text).logits
    assert torch.equal(alone, expected)
    assert torch.equal(model(**inputs).logits, before)
    assert not torch.equal(before, alone)

    (base / "config.json").unlink()
    with model.disable_adapter():
        assert torch.equal(model(**inputs).logits, alone)
    assert set(model.state_dict()) == names
    assert not any(parameter.is_inference() for parameter in model._base.parameters())


def test_a_base_that_is_gone_is_named(trained: PreTrainedModel, base: Path):
    model = TextOnlyModel(trained)
    (base / "config.json").unlink()
    with (
        pytest.raises(OSError, match=f"The base model '{base}' .* could not be loaded"),
        model.disable_adapter(),
    ):
        pass
    assert model.text_model is trained


def test_a_lora_whose_base_is_gone(base: Path, tmp_path: Path):
    lora = ModelArguments(method="lora", base=str(base), target_modules=["q_proj"])
    make_model(lora).save_pretrained(tmp_path / "lora")
    (base / "config.json").unlink()
    with pytest.raises(OSError, match=f"The base model '{base}' .* could not be loaded"):
        load_model(str(tmp_path / "lora"))


def test_what_is_no_checkpoint_of_ours(base: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="is a llama model, not a MoRA checkpoint"):
        method_of(str(base))
    with pytest.raises(OSError, match="no/such/dir' is neither a folder with a MoRA checkpoint"):
        method_of("no/such/dir")
    model = AutoModelForCausalLM.from_pretrained(base)
    prefix = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    get_peft_model(model, prefix).save_pretrained(tmp_path / "prefix")
    with pytest.raises(ValueError, match="is a PREFIX_TUNING model, not a MoRA checkpoint"):
        method_of(str(tmp_path / "prefix"))


@pytest.mark.parametrize("command", [decoding_speed, shared_weights])
def test_commands_about_generated_weights_are_for_mora(
    command, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    model = AutoModelForCausalLM.from_pretrained(base)
    lora = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])
    get_peft_model(model, lora).save_pretrained(tmp_path / "lora")
    assert command.main(["--model", str(tmp_path / "lora")]) == 2
    assert "is a lora checkpoint, but only MoRA" in capsys.readouterr().err
