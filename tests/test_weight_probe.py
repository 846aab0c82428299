# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""What the probe measures, against the weights written out in full."""

from collections.abc import Callable

import pytest
import torch
from conftest import MOLECULES
from transformers import LlamaForCausalLM

from modeling_mora import MoraForCausalLM, MoraProcessor
from training.weight_probe import PROBED_MOLECULES, WeightProbe, make_probe

DIVERSITY, NORM = "mora/weight_diversity", "mora/delta_norm"
FORMS = [{}, {"core_dim": 8, "alpha": 12}, {"generator_type": "dense"}]


@pytest.fixture(params=FORMS, ids=["core", "wide core", "dense"])
def model(request: pytest.FixtureRequest, make_model: Callable[..., MoraForCausalLM]):
    return make_model(**request.param)


def make(model: MoraForCausalLM, processor: MoraProcessor) -> WeightProbe:
    return WeightProbe(model, MOLECULES[:5], processor.feature_extractor)


def test_values_are_those_of_the_weights_in_full(model: MoraForCausalLM, processor: MoraProcessor):
    weights = [model._weights_of_molecules(molecule).flatten() for molecule in MOLECULES[:5]]
    middle = sum(weights) / 5
    spread = sum((w - middle).square().sum() for w in weights) / sum(
        w.square().sum() for w in weights
    )

    relative = []
    per_molecule = [model.tuner.lora_matrices(w) for w in weights]
    for modules in zip(*per_molecule, strict=True):
        squares = [(model.tuner.scaling * a @ b).square().sum() for _, a, b in modules]
        frozen = model.language_model.get_submodule(modules[0][0].name).weight
        relative.append((torch.stack(squares).mean().sqrt() / frozen.norm()).item())

    values = make(model, processor).measure()
    assert values[DIVERSITY] == pytest.approx(spread.sqrt().item(), rel=1e-4)
    assert values[NORM] == pytest.approx(torch.tensor(relative).median().item(), rel=1e-4)
    assert values[DIVERSITY] > 0.01 and values[NORM] > 0.01


def test_adapter_at_the_start_does_nothing(model: MoraForCausalLM, processor: MoraProcessor):
    with torch.no_grad():
        for delta in model.tuner.deltas.values():
            delta.B.zero_()
    values = make(model, processor).measure()
    assert values[NORM] == 0
    assert 0.01 < values[DIVERSITY] < 1


def test_measuring_is_without_dropout_and_changes_nothing(
    make_model: Callable[..., MoraForCausalLM], processor: MoraProcessor
):
    settings = {"hidden_size": 32, "num_layers": 2, "dropout": 0.5}
    model = make_model(graph_config=settings).train()
    probe = make(model, processor)
    before = torch.get_rng_state()
    assert probe.measure() == probe.measure()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in model.graph_encoder.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_whole_mlp_is_compared_with_all_its_matrices(
    make_model: Callable[..., MoraForCausalLM], processor: MoraProcessor
):
    model = make_model(target_modules=["mlp"])
    probe = make(model, processor)
    probe.measure()
    mlp = model.language_model.model.layers[0].mlp
    matrices = [mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight]
    expected = torch.stack([matrix.norm() for matrix in matrices]).norm().item()
    assert probe.frozen_norms[0] == pytest.approx(expected, rel=1e-5)


def test_each_warning_is_given_once(
    make_model: Callable[..., MoraForCausalLM], processor: MoraProcessor
):
    probe = make(make_model(), processor)
    assert probe.warnings({DIVERSITY: 6e-3, NORM: 2e-5}, 5, [1e-3]) == []
    (first,) = probe.warnings({DIVERSITY: 4e-3, NORM: 2e-5}, 6, [1e-3, 5e-4])
    assert first.startswith("Step 6: mora/weight_diversity is 0.004, below 0.005: ")
    assert first.endswith("Learning rates now: 0.0005, 0.001.")
    (second,) = probe.warnings({DIVERSITY: 1e-3, NORM: 0.0}, 7, [1e-3])
    assert second.startswith("Step 7: mora/delta_norm is 0, below 1e-05: ")
    assert probe.warnings({DIVERSITY: 1e-3, NORM: 0.0}, 8, [1e-3]) == []


def test_which_molecules_are_probed(
    make_model: Callable[..., MoraForCausalLM], processor: MoraProcessor, tiny_base: str
):
    model = make_model()
    of_one = {"molecule": [None, "CCO", None, "CCO"]}
    many = {"molecule": [None, "C", "C", *MOLECULES]}
    probe = make_probe(model, [of_one, many], processor)
    expected = processor.feature_extractor(MOLECULES[:PROBED_MOLECULES], return_tensors="pt")
    assert torch.equal(probe.graphs["graph_atoms"], expected["graph_atoms"])
    assert make_probe(model, [of_one], processor) is None
    assert make_probe(model, [], processor) is None
    other = LlamaForCausalLM.from_pretrained(tiny_base)
    assert make_probe(other, [many], processor) is None
