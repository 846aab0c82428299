# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Law 6: an exported LoRA adapter, loaded by PEFT, gives the logits of the model."""

import pytest
import torch
from conftest import LINEAR_MODULES
from peft import PeftModel
from transformers import AutoModelForCausalLM

from modeling_mora.export_mora import export_lora, main

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


def test_mlp_target_is_a_clear_error(make_model, tmp_path):
    model = make_model(target_modules=["q_proj", "mlp"])
    with pytest.raises(ValueError, match=r"layers\.0\.mlp is adapted as a whole"):
        export_lora(model, "CCO", tmp_path)


def test_command(make_model, processor, tmp_path, capsys):
    make_model(target_modules=LINEAR_MODULES).save_pretrained(tmp_path / "mora")
    processor.save_pretrained(tmp_path / "mora")
    model, out = str(tmp_path / "mora"), str(tmp_path / "lora")
    assert main(["--model", model, "--molecule", "CCO", "--out", out]) == 0
    assert {path.name for path in (tmp_path / "lora").iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert main(["--model", model, "--molecule", "C(C", "--out", out]) == 2
    assert "C(C" in capsys.readouterr().err
