# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""`merged`: one molecule's weights folded into the base, and the base restored bit by bit."""

import copy
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from bases import random_base
from peft import LoraConfig, get_peft_model

from modeling_mora import MoleculeError, MoraForCausalLM
from modeling_mora.export_mora import lora_config
from modeling_mora.tuner_mora import DeltaHook

TEXTS = ["What is the gap?", "Why?", "Is it soluble in water?"]


def base_tensors(model: MoraForCausalLM) -> dict[str, torch.Tensor]:
    return copy.deepcopy(model.language_model.state_dict())


def assert_restored(model: MoraForCausalLM, before: dict[str, torch.Tensor]) -> None:
    after = model.language_model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def count_hooks(model: MoraForCausalLM) -> int:
    hooks = [h for m in model.language_model.modules() for h in m._forward_hooks.values()]
    return sum(isinstance(hook, DeltaHook) for hook in hooks)


@pytest.fixture
def text(processor) -> dict:
    return processor(text=TEXTS, return_tensors="pt", padding=True)


@torch.no_grad()
@pytest.mark.parametrize(
    "form", [{}, {"core_dim": 12, "alpha": 7}, {"generator_type": "dense"}], ids=str
)
def test_merged_equals_generated(make_model, processor, text, form):
    """Logits and answers of text alone are those of text with the molecule."""
    model = make_model(**form)
    before = base_tensors(model)
    inputs = processor(text=TEXTS, molecules=["CC(=O)C"] * 3, return_tensors="pt", padding=True)
    logits = model(**inputs).logits
    tokens = model.generate(**inputs, max_new_tokens=5, do_sample=False)
    with model.merged("CC(=O)C") as merged:
        assert merged is model
        torch.testing.assert_close(model(**text).logits, logits, atol=1e-5, rtol=1e-5)
        found = model.generate(**text, max_new_tokens=5, do_sample=False)
    assert torch.equal(found, tokens)
    assert_restored(model, before)
    assert torch.equal(model(**inputs).logits, logits)
    with model.disable_adapter():
        assert (model(**text).logits - logits).abs().max() > 1e-2


@torch.no_grad()
def test_merging_generated_weights(make_model, processor, text):
    model = make_model()
    graph = processor.feature_extractor(["CCO"], return_tensors="pt")
    with model.merged("CCO"):
        expected = model(**text).logits
    with model.merged(model.encode_molecules(**graph)):
        assert torch.equal(model(**text).logits, expected)


@torch.no_grad()
def test_chats_without_a_molecule_may_be_asked(make_model, processor):
    """The processor's graphs of such chats hold no atom."""
    model = make_model()
    chats = [[{"role": "user", "content": text}] for text in TEXTS]
    settings = {"tokenize": True, "return_tensors": "pt", "add_generation_prompt": True}
    inputs = processor.apply_chat_template(chats, **settings)
    plain = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with model.merged("CCO"):
        assert torch.equal(model(**inputs).logits, model(**plain).logits)


def test_restored_after_an_exception(make_model):
    model = make_model()
    before, hooks = base_tensors(model), count_hooks(model)
    with pytest.raises(KeyboardInterrupt), model.merged("CCO"):
        raise KeyboardInterrupt
    assert_restored(model, before)
    assert count_hooks(model) == hooks and not model.tuner.state.merged


def test_restored_after_running_out_of_memory(make_model, monkeypatch):
    """An error in the middle of merging, with some weights changed already."""
    model = make_model()
    before, hooks = base_tensors(model), count_hooks(model)
    matrices = type(model.tuner).lora_matrices

    def failing(tuner, weights):
        for count, entry in enumerate(matrices(tuner, weights)):
            if count == 5:
                raise RuntimeError("out of memory")
            yield entry

    monkeypatch.setattr(type(model.tuner), "lora_matrices", failing)
    with pytest.raises(RuntimeError, match="out of memory"), model.merged("CCO"):
        pass
    assert_restored(model, before)
    assert count_hooks(model) == hooks


@torch.no_grad()
def test_bfloat16_base(tiny_base, processor, text):
    """Close to the generated weights, and the rounded base is restored exactly."""
    model = MoraForCausalLM.from_base(tiny_base, rank=4, dtype=torch.bfloat16)
    for delta in model.tuner.deltas.values():
        delta.B.normal_(std=0.1)
    before = base_tensors(model)
    inputs = processor(text=TEXTS, molecules=["CCO"] * 3, return_tensors="pt", padding=True)
    expected = model(**inputs).logits[:, -1]
    with model.merged("CCO"):
        assert {p.dtype for p in model.language_model.parameters()} == {torch.bfloat16}
        found = model(**text).logits[:, -1]
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()
    assert_restored(model, before)


@torch.no_grad()
def test_under_a_second_lora(make_model, processor, text):
    model = make_model()
    torch.manual_seed(0)
    lora = get_peft_model(model, LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    inputs = processor(text=TEXTS, molecules=["CCO"] * 3, return_tensors="pt", padding=True)
    expected = model(**inputs).logits
    with model.merged("CCO"):
        torch.testing.assert_close(model(**text).logits, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(model(**inputs).logits, expected)
    unwrapped = lora.merge_and_unload()
    torch.testing.assert_close(unwrapped(**inputs).logits, expected, atol=1e-5, rtol=1e-5)


def test_misuse_is_a_clear_error(make_model, processor, text, tmp_path):
    model = make_model()
    inputs = processor(text=TEXTS, molecules=["CCO"] * 3, return_tensors="pt", padding=True)
    with model.merged("CCO"):
        with pytest.raises(ValueError, match="inside `merged` give text alone"):
            model(**inputs)
        with pytest.raises(ValueError, match="inside `merged` give text alone"):
            model.generate(**inputs)
        with pytest.raises(ValueError, match="neither inside another `merged`"):
            model.merged("C").__enter__()
        with pytest.raises(ValueError, match="leave `merged` first"):
            model.disable_adapter().__enter__()
        with pytest.raises(ValueError, match="leave `merged` before saving"):
            model.save_pretrained(tmp_path / "full", save_base=True)
        model.save_pretrained(tmp_path / "adapter")
    with model.disable_adapter(), pytest.raises(ValueError, match="nor inside `disable_adapter`"):
        model.merged("C").__enter__()
    with pytest.raises(ValueError, match="None is no molecule"):
        model.merged(None).__enter__()
    with pytest.raises(ValueError, match=r"takes one molecule.*got \[2, "):
        model.merged(["CCO", "C"]).__enter__()
    with pytest.raises(MoleculeError, match=r"C\(C"):
        model.merged("C(C").__enter__()


@torch.no_grad()
def test_threads_wait_for_each_other(make_model, processor, text):
    """Two molecules merged at once; meanwhile the base and a third molecule are asked."""
    model = make_model()
    before = base_tensors(model)
    third = processor(text=TEXTS, molecules=["C#N"] * 3, return_tensors="pt", padding=True)
    expected = {None: model(**text).logits, "C#N": model(**third).logits}
    for molecule in ("CCO", "c1ccccc1"):
        with model.merged(molecule):
            expected[molecule] = model(**text).logits

    def ask(molecule: str | None) -> bool:
        with torch.no_grad():
            if molecule is None:
                return torch.equal(model(**text).logits, expected[None])
            if molecule == "C#N":
                model.generate(**third, max_new_tokens=1)
                return torch.equal(model(**third).logits, expected[molecule])
            with model.merged(molecule):
                time.sleep(0.002)
                return torch.equal(model(**text).logits, expected[molecule])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, ["CCO", None, "c1ccccc1", "C#N"] * 12))
    assert_restored(model, before)


def test_a_copy_of_a_merged_model_is_a_clear_error(make_model):
    model = make_model()
    with model.merged("CCO"), pytest.raises(ValueError, match="leave `merged` before copying"):
        copy.deepcopy(model)


def test_mlp_target_is_a_clear_error(make_model):
    model = make_model(target_modules=["q_proj", "mlp"])
    before = base_tensors(model)
    with pytest.raises(ValueError, match=r"layers\.0\.mlp is adapted as a whole"):
        model.merged("CCO").__enter__()
    assert_restored(model, before)


def test_quantised_base_is_a_clear_error(make_model):
    model = make_model(target_modules=["q_proj"])
    for name, module in model.language_model.named_modules():
        if name.endswith("q_proj"):
            module.weight = torch.nn.Parameter(module.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match=r"quantised or offloaded \(torch\.int8 on cpu\)"):
        model.merged("CCO").__enter__()


@torch.no_grad()
def test_compiled_layers_keep_the_molecules(make_model, processor, text):
    """Compiled code does not notice when hooks come and go."""
    model = make_model()
    inputs = processor(text=TEXTS, molecules=["CCO"] * 3, return_tensors="pt", padding=True)
    expected = model(**inputs).logits
    for layer in model.language_model.model.layers:
        layer.compile(backend="eager")
    with model.merged("CCO"):
        torch.testing.assert_close(model(**text).logits, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model(**inputs).logits, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_conv1d_under_a_second_lora(tmp_path, tokenizer, processor, text):
    """PEFT wraps GPT-2's Conv1D, whose weight is [d_in, d_out]; `attn.c_proj` is square."""
    random_base("gpt2", tokenizer).save_pretrained(tmp_path)
    targets = ["attn.c_proj", "c_attn"]
    model = MoraForCausalLM.from_base(tmp_path, rank=4, target_modules=targets)
    for delta in model.tuner.deltas.values():
        delta.B.normal_(std=0.1)
    lora = LoraConfig(target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)
    get_peft_model(model, lora)
    inputs = processor(text=TEXTS, molecules=["CCO"] * 3, return_tensors="pt", padding=True)
    expected = model(**inputs).logits
    with model.merged("CCO"):
        torch.testing.assert_close(model(**text).logits, expected, atol=1e-5, rtol=1e-5)
    assert lora_config(model).fan_in_fan_out


def test_modes_of_the_modules_are_kept(make_model):
    """Merging in the middle of training must not wake up what was put to evaluation."""
    model = make_model(graph_config={"hidden_size": 32, "num_layers": 2, "dropout": 0.5}).train()
    model.language_model.eval()
    with model.merged("CCO"):
        first = base_tensors(model)
    with model.merged("CCO"):
        assert_restored(model, first)  # no dropout in the merged weights
    assert model.graph_encoder.training and not model.language_model.training
