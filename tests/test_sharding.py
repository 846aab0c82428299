# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Models that two processes hold between them: making, loading and saving them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import LINEAR_MODULES
from processes import ON_CPU, run_processes
from safetensors.torch import load_file, save_file
from transformers import set_seed

from modeling_mora import MoraForCausalLM, MoraGraphConfig, MoraGraphEncoder
from modeling_mora.sharding_mora import whole_tensor, without_fsdp_class

pytestmark = pytest.mark.slow

SETTINGS = {
    "rank": 4,
    "target_modules": LINEAR_MODULES,
    "generator_dim": 32,
    "generator_heads": 4,
    "freeze_graph_encoder": True,
}
START = """
import json, os, sys
from pathlib import Path

import torch
from transformers import TrainingArguments, set_seed

from modeling_mora import MoraForCausalLM, MoraGraphEncoder
from modeling_mora.sharding_mora import is_zero3_parameter

base, folder, settings = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
is_first = os.environ["RANK"] == "0"


def save(name, tensors):
    if is_first:
        torch.save(tensors, folder / name)
"""
ZERO3 = (
    ON_CPU
    + START
    + """
# As in the training: these switch ZeRO-3 on.
arguments = TrainingArguments(output_dir=folder, use_cpu=True, ddp_backend="gloo")
encoder = MoraGraphEncoder.from_pretrained(folder / "encoder")
set_seed(0)
model = MoraForCausalLM.from_base(base, graph_encoder=encoder, **settings)
assert all(is_zero3_parameter(p) and p.numel() == 0 for p in model.parameters())
model.print_trainable_parameters()
save("fresh.pt", model.whole_state_dict(save_base=True))

half = MoraForCausalLM.from_base(base, dtype=torch.bfloat16, **settings)
assert half.dtype == torch.bfloat16 and half.tuner.deltas[next(iter(half.tuner.deltas))].B.dtype \\
    == torch.float32
half.save_pretrained(folder / "half", save_base=True, is_main_process=is_first)

model = MoraForCausalLM.from_pretrained(folder / "adapter")
model.save_pretrained(folder / "saved", is_main_process=is_first)
for wrong, message in (("other_base", "other base weights"), ("other_rank", "expected [4, 64]")):
    try:
        MoraForCausalLM.from_pretrained(folder / wrong)
    except ValueError as error:
        assert message in str(error), error
    else:
        raise AssertionError(wrong)
"""
)
FSDP2 = (
    START
    + """
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

dist.init_process_group("gloo")
model = MoraForCausalLM.from_pretrained(folder / "adapter")
for layer in model.language_model.model.layers:
    fully_shard(layer)
fully_shard(model)
model.save_pretrained(folder / "saved", is_main_process=is_first)
dist.destroy_process_group()
"""
)


@pytest.fixture
def folder(tmp_path: Path, make_model: Callable[..., MoraForCausalLM]) -> Path:
    """With the checkpoint of an adapter, and three things that do not fit."""
    model = make_model(freeze_graph_encoder=True)
    model.save_pretrained(tmp_path / "adapter")
    model.config.base_fingerprint = "0" * 32
    model.save_pretrained(tmp_path / "other_base")
    make_model(freeze_graph_encoder=True).save_pretrained(tmp_path / "other_rank")
    tensors = load_file(tmp_path / "other_rank" / "model.safetensors")
    name = next(name for name in tensors if name.endswith("q_proj.B"))
    save_file(
        tensors | {name: tensors[name][:2].clone()}, tmp_path / "other_rank/model.safetensors"
    )
    torch.manual_seed(3)
    encoder = MoraGraphEncoder(
        MoraGraphConfig(form="moleculestm", hidden_size=32, num_layers=2)
    ).eval()
    for name, buffer in encoder.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
    encoder.save_pretrained(tmp_path / "encoder")
    return tmp_path


def run_two(folder: Path, base: Path, config: str, script: str) -> str:
    path = folder / "script.py"
    path.write_text(script)
    return run_processes(config, path, base, folder, json.dumps(SETTINGS))


def check_saved(folder: Path) -> None:
    """The copy that two processes saved is the checkpoint that they loaded."""
    saved, adapter = (load_file(folder / x / "model.safetensors") for x in ("saved", "adapter"))
    assert saved.keys() == adapter.keys()
    assert all(torch.equal(saved[name], adapter[name]) for name in adapter)
    config = json.loads((folder / "saved" / "config.json").read_text())
    assert config == json.loads((folder / "adapter" / "config.json").read_text())
    files = [sorted(path.name for path in (folder / x).iterdir()) for x in ("saved", "adapter")]
    assert files[0] == files[1]


def test_zero3(folder: Path, tiny_base: Path):
    printed = run_two(folder, tiny_base, "zero3", ZERO3)
    encoder = MoraGraphEncoder.from_pretrained(folder / "encoder")
    set_seed(0)
    model = MoraForCausalLM.from_base(tiny_base, graph_encoder=encoder, **SETTINGS)
    assert f"all params: {model.num_parameters():,}" in printed
    fresh, expected = torch.load(folder / "fresh.pt", weights_only=True), model.state_dict()
    assert fresh.keys() == expected.keys()
    assert all(torch.equal(fresh[name], expected[name]) for name in expected)
    check_saved(folder)
    half = load_file(folder / "half" / "model.safetensors")
    dtypes = {name.split(".")[0]: tensor.dtype for name, tensor in half.items()}
    assert dtypes.pop("language_model") == torch.bfloat16
    assert set(dtypes.values()) == {torch.float32}


def test_fsdp2(folder: Path, tiny_base: Path):
    run_two(folder, tiny_base, "multi_gpu", FSDP2)
    check_saved(folder)


def test_tensor_that_is_not_cut_up_is_not_copied():
    tensor = torch.nn.Parameter(torch.ones(2))
    assert whole_tensor(tensor).data_ptr() == tensor.data_ptr()
    assert not whole_tensor(tensor).requires_grad


def test_class_comes_back_after_an_error():
    class Written(torch.nn.Module):
        pass

    class Mixin:
        pass

    module = Written()
    module.__class__ = sharded = type("FSDPWritten", (Mixin, Written), {})
    with pytest.raises(RuntimeError), without_fsdp_class(module):
        assert type(module) is Written
        raise RuntimeError
    assert type(module) is sharded
