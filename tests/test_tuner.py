# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""`MoraTuner`: which modules are adapted, and attaching to them."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from modeling_mora import MoraConfig, MoraForCausalLM
from modeling_mora.targets_mora import Target, find_targets
from modeling_mora.tuner_mora import DeltaHook, MoraDelta


@pytest.fixture(scope="module")
def base(tiny_base):
    return AutoModelForCausalLM.from_pretrained(tiny_base)


def names(base, **kwargs):
    targets = find_targets(base, MoraConfig(text_config=base.config, **kwargs))
    return [(target.layer, target.kind) for target in targets]


def test_default_targets_are_those_of_peft(base):
    from peft import LoraConfig, get_peft_model

    peft_model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base.name_or_path), LoraConfig()
    )
    expected = {n for n in peft_model.targeted_module_names}
    targets = find_targets(base, MoraConfig(text_config=base.config))
    assert {target.name for target in targets} == expected


@pytest.mark.parametrize(
    ("kwargs", "layers", "kinds"),
    [
        ({"target_modules": ["q_proj"]}, {0, 1, 2}, {"self_attn.q_proj"}),
        ({"target_modules": ["q_proj"], "layers_to_transform": [2]}, {2}, {"self_attn.q_proj"}),
        ({"target_modules": ["q_proj"], "layers_to_transform": 1}, {1}, {"self_attn.q_proj"}),
        ({"target_modules": ["q_proj"], "layer_stride": 2}, {1}, {"self_attn.q_proj"}),
        ({"target_modules": r".*\.(0|2)\..*up_proj"}, {0, 2}, {"mlp.up_proj"}),
        ({"target_modules": ["mlp"]}, {0, 1, 2}, {"mlp"}),
        (
            {"target_modules": "all-linear", "layers_to_transform": [0]},
            {0},
            {f"self_attn.{x}_proj" for x in "qkvo"}
            | {f"mlp.{x}_proj" for x in ("up", "gate", "down")},
        ),
    ],
)  # fmt: skip
def test_target_forms(base, kwargs, layers, kinds):
    found = names(base, **kwargs)
    assert {layer for layer, _ in found} == layers
    assert {kind for _, kind in found} == kinds
    assert found == sorted(found, key=lambda target: (target[1], target[0]))


def test_grouped_query_attention_sizes(base):
    targets = find_targets(
        base, MoraConfig(text_config=base.config, target_modules=["k_proj", "mlp"])
    )
    sizes = {target.kind: (target.d_in, target.d_out) for target in targets}
    assert sizes == {"self_attn.k_proj": (64, 32), "mlp": (64, 64)}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"target_modules": ["qproj"]}, r"'qproj' matches no module.*q_proj"),
        ({"target_modules": ["q_proj", "v_porj"]}, r"'v_porj' matches no module.*v_proj"),
        ({"target_modules": "q_proj"}, r"'q_proj' matches no module.*endings as a list.*q_proj"),
        ({"target_modules": "*.q_proj"}, r"'\*\.q_proj' is not a regular expression: nothing to"),
        ({"target_modules": ["q_proj", "lm_head"]}, r"'lm_head' matches only lm_head, in no deco"),
        ({"target_modules": "lm_head"}, r"'lm_head' matches only lm_head, in no decoder layer"),
        ({"layers_to_transform": [1, 7]}, r"layers_to_transform=\[1, 7\].*layers 0 to 2"),
        ({"layer_stride": 4}, r"layer_stride=4 chooses no layer.*only 3"),
        (
            {"target_modules": r".*\.0\.self_attn\.q_proj", "layer_stride": 2},
            r"layer_stride=2 together match no module",
        ),
        (
            {"target_modules": r".*q_proj", "layers_to_transform": [1]},
            r"layers_to_transform=\[1\] has no effect on the regular expression",
        ),
    ],
)
def test_what_matches_nothing_is_a_clear_error(base, kwargs, message):
    with pytest.raises(ValueError, match=message):
        names(base, **kwargs)


def test_module_of_unknown_form_is_refused(base):
    with pytest.raises(ValueError, match=r"self_attn is a LlamaAttention"):
        names(base, target_modules=["self_attn"])


def test_attach_is_idempotent(make_model, processor):
    model = make_model()
    inputs = processor(text=["a"], molecules=["CCO"], return_tensors="pt")
    expected = model(**inputs).logits
    model.tuner.attach(model.language_model)
    hooks = [
        hook
        for module in model.language_model.modules()
        for hook in module._forward_hooks.values()
        if isinstance(hook, DeltaHook)
    ]
    assert len(hooks) == len(model.tuner.targets)
    assert model(**inputs).logits.equal(expected)


def test_base_keys_are_untouched(make_model, base):
    model = make_model()
    assert set(model.language_model.state_dict()) == set(base.state_dict())


def test_initial_scale_is_that_of_lora(tiny_base, processor):
    """The generated [d_in, rank] matrix is about as large as the A of PEFT's LoRA."""
    for settings in ({"rank": 8, "core_dim": 64}, {"rank": 8, "generator_type": "dense"}):
        model = MoraForCausalLM.from_base(tiny_base, **settings)
        graph = processor.feature_extractor(["CCO", "c1ccccc1"], return_tensors="pt")
        weights = model.encode_molecules(**graph).detach()
        target, delta = model.tuner.targets[0], next(iter(model.tuner.deltas.values()))
        rows, rank = target.factor_shape
        factor = weights[:, : rows * rank].view(-1, rows, rank)
        if delta.A is not None:
            factor = delta.A @ (factor - model.weight_generator.static_core[0])
        lora_std = 1 / (3 * target.d_in) ** 0.5
        assert factor.std().item() == pytest.approx(lora_std, rel=0.35)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_products_have_the_format_of_the_inputs(dtype: torch.dtype):
    """And come close to those in float32, with gradients for the float32 matrices."""
    torch.manual_seed(0)
    target = Target("layers.0.q_proj", 0, "q_proj", 32, 24, (8, 4), True)
    delta = MoraDelta(target, MoraConfig(rank=4, core_dim=8))
    delta.reset_parameters()
    torch.nn.init.normal_(delta.B)
    inputs, factor = torch.randn(3, 5, 32), torch.randn(3, 8, 4, requires_grad=True)
    learned = [delta.A, delta.B, factor]

    def run(dtype: torch.dtype) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        output = delta(inputs.to(dtype), factor)
        return output, torch.autograd.grad(output.sum(), learned)

    expected, expected_grads = run(torch.float32)
    plain = inputs @ delta.A @ factor @ delta.B
    torch.testing.assert_close(expected, plain)
    output, grads = run(dtype)
    assert output.dtype == dtype and output.shape == (3, 5, 24)
    for found, right in zip([output, *grads], [expected, *expected_grads], strict=True):
        assert (found - right).norm() < 0.05 * right.norm()
    assert {grad.dtype for grad in grads} == {torch.float32}
