# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The published setting: its equations written out one number after the other, and its sizes."""

import copy
import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from modeling_mora import (
    MoleculeFeatureExtractor,
    MoraConfig,
    MoraForCausalLM,
    MoraGraphConfig,
    MoraGraphEncoder,
)
from modeling_mora.configuration_mora import PAPER_SETTINGS

README = Path(__file__).parents[1] / "modeling_mora" / "README.md"
LAYERS, RANK, ALPHA, DIM, DEPTH, HEADS = 8, 3, 5, 12, 2, 3
KINDS = ["mlp", "self_attn.k_proj", "self_attn.o_proj", "self_attn.q_proj", "self_attn.v_proj"]
MOLECULES = ["CCO", "c1ccccc1C(=O)O", "C[C@H](N)O"]


def tiny_llama() -> LlamaConfig:
    """Grouped-query attention, and an o_proj whose input is not as wide as its output."""
    return LlamaConfig(
        vocab_size=61,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=12,
        initializer_range=0.2,
    )


@pytest.fixture(scope="module")
def model() -> MoraForCausalLM:
    """A small published setting in float64, every parameter of which makes a difference."""
    torch.manual_seed(0)
    config = MoraConfig.paper(
        tiny_llama(),
        rank=RANK,
        alpha=ALPHA,
        generator_dim=DIM,
        generator_depth=DEPTH,
        generator_heads=HEADS,
        graph_config=MoraGraphConfig(form="moleculestm", hidden_size=20, num_layers=2),
    )
    model = MoraForCausalLM(config).double().eval()
    with torch.no_grad():
        for parameter in [*model.weight_generator.parameters(), *model.tuner.parameters()]:
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def layer_norm(x: torch.Tensor, norm: nn.LayerNorm) -> torch.Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scale = centred.square().mean(-1, keepdim=True).add(norm.eps).sqrt()
    return centred / scale * norm.weight + norm.bias


def gelu(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return torch.einsum("ni,oi->no", x, weight) + bias


def attention(x: torch.Tensor, memory: torch.Tensor, layer: nn.MultiheadAttention) -> torch.Tensor:
    """softmax(Q Kᵀ / sqrt(d)) V for each head, joined and projected: [M, DIM]."""
    parts = zip(layer.in_proj_weight.chunk(3), layer.in_proj_bias.chunk(3), strict=True)
    inputs = (x, memory, memory)
    q, k, v = (linear(y, w, b) for y, (w, b) in zip(inputs, parts, strict=True))
    size = DIM // HEADS
    heads = []
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        scores = torch.einsum("me,ne->mn", q[:, part], k[:, part]) / math.sqrt(size)
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        heads.append(torch.einsum("mn,ne->me", weights, v[:, part]))
    return linear(torch.cat(heads, dim=-1), layer.out_proj.weight, layer.out_proj.bias)


def generated_matrices(
    model: MoraForCausalLM, states: torch.Tensor
) -> dict[tuple[int, str], torch.Tensor]:
    """A_i of each adapted layer and type, for one molecule's [N, 20] atom states."""
    generator = model.weight_generator
    memory = linear(states, generator.atom_projection.weight, generator.atom_projection.bias)
    layers = [i for i in range(LAYERS) if (i + 1) % 4 == 0]
    matrices = {}
    for number, kind in enumerate(KINDS):
        x = torch.stack(
            [
                generator.layer_embedding[i] + generator.kind_embedding[number]
                for i in range(len(layers))
            ]
        )
        for block in generator.stacks[number].blocks:
            y = layer_norm(x, block.norm1)
            x = x + attention(y, y, block.self_attn)
            x = x + attention(layer_norm(x, block.norm2), memory, block.multihead_attn)
            hidden = linear(layer_norm(x, block.norm3), block.linear1.weight, block.linear1.bias)
            x = x + linear(gelu(hidden), block.linear2.weight, block.linear2.bias)
        x = layer_norm(x, generator.stacks[number].norm)
        head = generator.heads[number]
        for i, flat in zip(layers, linear(x, head.weight, head.bias), strict=True):
            matrices[i, kind] = flat.reshape(-1, RANK)
    return matrices


class MLPWithDelta(nn.Module):
    def __init__(self, mlp: nn.Module, delta: torch.Tensor):
        super().__init__()
        self.mlp = mlp
        self.delta = delta

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mlp(x) + torch.einsum("btd,de->bte", x, self.delta)


def base_with_deltas(
    model: MoraForCausalLM, matrices: dict[tuple[int, str], torch.Tensor]
) -> LlamaForCausalLM:
    """The base with alpha / rank · A_i B in its own weights, and beside its MLPs."""
    base = LlamaForCausalLM(copy.deepcopy(model.language_model.config)).double().eval()
    base.load_state_dict(model.language_model.state_dict())
    for (layer, kind), a in matrices.items():
        b = model.tuner.deltas[f"model_layers_{layer}_{kind.replace('.', '_')}"].B
        delta = ALPHA / RANK * torch.einsum("ir,ro->io", a, b)
        block = base.model.layers[layer]
        if kind == "mlp":
            block.mlp = MLPWithDelta(block.mlp, delta)
        else:
            block.get_submodule(kind).weight.add_(delta.T)
    return base


@torch.no_grad()
def test_logits_are_those_of_the_equations(model):
    """A padded batch against each row alone: molecule, generator, deltas and base by hand."""
    extract = MoleculeFeatureExtractor()
    input_ids = torch.randint(61, (len(MOLECULES), 7), generator=torch.Generator().manual_seed(3))
    logits = model(input_ids, **extract(MOLECULES, return_tensors="pt")).logits
    plain = model(input_ids).logits
    for row, molecule in enumerate(MOLECULES):
        alone = model.graph_encoder(**extract([molecule], return_tensors="pt"))[0]
        base = base_with_deltas(model, generated_matrices(model, alone))
        expected = base(input_ids[row : row + 1]).logits[0]
        torch.testing.assert_close(logits[row], expected, atol=1e-5, rtol=1e-5)
        assert (logits[row] - plain[row]).abs().max() > 0.1


def test_adapted_modules(model):
    """q k v o and the whole MLP of the layers 4, 8, 12, … counted from one."""
    names = {(target.layer, target.kind) for target in model.tuner.targets}
    assert names == {(layer, kind) for layer in (3, 7) for kind in KINDS}
    assert len(model.weight_generator.stacks) == len(KINDS)


def test_defaults():
    config = MoraConfig.paper(tiny_llama())
    assert {name: getattr(config, name) for name in PAPER_SETTINGS} == PAPER_SETTINGS
    graph = config.graph_config
    assert (graph.form, graph.hidden_size, graph.num_layers) == ("moleculestm", 300, 5)


def test_around_a_pretrained_base(tiny_base):
    """`PAPER_SETTINGS` are keyword arguments of `from_base`; the encoder comes with its weights."""
    torch.manual_seed(0)
    encoder = MoraGraphEncoder(MoraGraphConfig(form="moleculestm", hidden_size=20))
    small = {"generator_dim": DIM, "generator_heads": HEADS, "rank": RANK, "layer_stride": 2}
    settings = PAPER_SETTINGS | small
    model = MoraForCausalLM.from_base(tiny_base, graph_encoder=encoder, **settings)
    assert {name: getattr(model.config, name) for name in settings} == settings
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(model.graph_encoder.state_dict()[name], tensor)


def trained(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def test_parameters_of_a_7b_base():
    """Counted on the meta device, which holds no values, and once more by hand."""
    base = LlamaConfig(
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        vocab_size=32000,
    )
    with torch.device("meta"):
        model = MoraForCausalLM(MoraConfig.paper(base))
    generator = model.weight_generator
    types, layers, dim, width, rank = 5, 8, 1024, 4096, 64
    attention_size = 4 * dim * dim + 4 * dim
    feed_forward_size = 8 * dim * dim + 5 * dim
    block = 2 * attention_size + feed_forward_size + 3 * 2 * dim
    assert trained(generator.stacks) == types * (8 * block + 2 * dim) == 671_877_120
    assert trained(generator.heads) == types * (dim + 1) * width * rank == 1_343_488_000
    assert trained(model.tuner) == types * layers * rank * width == 10_485_760
    assert trained(model.graph_encoder) == 0
    queries_and_projection = (layers + types) * dim + 300 * dim + dim
    parts = [generator.stacks, generator.heads, model.tuner]
    assert trained(model) == sum(map(trained, parts)) + queries_and_projection
    assert model.tuner.weights_size == types * layers * width * rank == 10_485_760
    assert sum(p.numel() for p in model.language_model.parameters()) == 6_738_415_616


def test_table_of_the_readme(capsys):
    """The lines of the README print the table of the README."""
    text = README.read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n((?:(?!```).)*torch\.device\(\"meta\"\).*?)```", text, re.S)
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 3
    assert all(f"\n{line}\n" in text for line in printed), printed
