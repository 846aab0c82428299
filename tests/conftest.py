# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Shared fixtures: a tiny random LLM with a byte-level tokenizer, and MoRA models around it."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import pytest
import torch
from bases import BASES
from hub_server import HubServer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Trainer

from modeling_mora import MoleculeFeatureExtractor, MoraForCausalLM, MoraProcessor

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# Chains, rings, charges, stereo, several components: sizes from 1 to 21 heavy atoms.
MOLECULES = [
    "C",
    "CCO",
    "c1ccccc1",
    "CC(=O)Oc1ccccc1C(=O)O",
    "C[C@H](N)C(=O)O",
    "[Na+].[Cl-]",
    "CCO.CC(=O)O.O=S(=O)(O)O",
    "F/C=C/F",
    "C1CC1",
    "CN1C=NC2=C1C(=O)N(C(=O)N2C)C",
    "N#N",
    "OCC(O)CO",
    "CC(C)Cc1ccc(cc1)C(C)C(=O)O",
    "C#CC",
    "[NH4+]",
    "O=C1CCCCC1",
]
LINEAR_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


LAW_TEST = re.compile(r"test_bases\.py::test_law_(\d)_(\w+)\[(.+)\]$")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the matrix base x law when tests/test_bases.py has run."""
    results: dict[str, dict[str, bool]] = {}
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            match = LAW_TEST.search(report.nodeid)
            if match:
                base = next(part for part in match[3].split("-") if part in BASES)
                row = results.setdefault(base, {})
                law = f"{match[1]} {match[2]}"
                row[law] = row.get(law, True) and outcome == "passed"
    if not results:
        return
    laws = sorted({law for row in results.values() for law in row})
    terminalreporter.section("base x law (+ holds, FAIL broken, . not run)")
    terminalreporter.line("".join([f"{'':14}", *(f"{law:>17}" for law in laws)]))
    marks = {True: "+", False: "FAIL", None: "."}
    for base in sorted(results):
        cells = [f"{marks[results[base].get(law)]:>17}" for law in laws]
        terminalreporter.line("".join([f"{base:14}", *cells]), red="FAIL" in "".join(cells))


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of single bytes, so that any text goes through it and back."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(SPECIAL_TOKENS + alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<|endoftext|>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
    )


def run(script: str, *args: object, cwd: Path, **environment: str) -> None:
    """Run a script in a fresh process, where this checkout can be imported."""
    command = [sys.executable, "-c", script, *map(str, args)]
    environment = os.environ | {"PYTHONPATH": os.getcwd()} | environment
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]


def run_without_package(script: str, *args: object, cwd: Path, **environment: str) -> None:
    """Run a script in a fresh process that cannot import this checkout."""
    code = (
        "import sys\n"
        f"sys.path[:] = [p for p in sys.path if p and {os.getcwd()!r} not in p.split(',')]\n"
        f"sys.meta_path[:] = [f for f in sys.meta_path if '__editable__' not in repr(f)]\n{script}"
    )
    settings = {"HF_MODULES_CACHE": str(cwd / "modules"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    run(code, *args, cwd=cwd, **(settings | environment))


@pytest.fixture(scope="session")
def hub() -> Iterator[HubServer]:
    """A Hub of this test process; scripts reach it with the environment of `hub_environment`."""
    with HubServer() as server:
        yield server


def hub_environment(hub: HubServer, home: Path) -> dict[str, str]:
    """Environment of a process that knows the test's Hub alone, with an empty cache in `home`.

    huggingface_hub reads it when it is imported, so only fresh processes can use it.
    """
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_MODULES_CACHE": str(home / "modules"),
        "HF_TOKEN": "hf_localtest",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
    }


@pytest.fixture
def datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for what the test opens with `datasets`."""
    cache = tmp_path / "datasets-cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    monkeypatch.setattr(datasets.config, "EXTRACTED_DATASETS_PATH", cache / "extracted")
    return cache


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return byte_tokenizer()


@pytest.fixture(scope="session")
def processor(tokenizer: PreTrainedTokenizerFast) -> MoraProcessor:
    return MoraProcessor(MoleculeFeatureExtractor(), tokenizer)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """Folder of a random Llama with grouped-query attention, and its tokenizer."""
    path = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.1,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def make_model(tiny_base: Path) -> Callable[..., MoraForCausalLM]:
    """Make a small MoRA; its B matrices are random, as after training, so that deltas show."""

    def make(base: Path = tiny_base, **kwargs: object) -> MoraForCausalLM:
        settings = {
            "rank": 4,
            "target_modules": LINEAR_MODULES,
            "generator_dim": 32,
            "generator_heads": 4,
            "graph_config": {"hidden_size": 32, "num_layers": 3},
        }
        torch.manual_seed(1)
        model = MoraForCausalLM.from_base(base, **(settings | kwargs))
        with torch.no_grad():
            for delta in model.tuner.deltas.values():
                delta.B.normal_(std=0.1)
        return model

    return make


@pytest.fixture
def steps_taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of each training step that the test takes, counted from 0."""
    steps = []
    training_step = Trainer.training_step

    def counted_step(self: Trainer, *args: object, **kwargs: object) -> torch.Tensor:
        steps.append(self.state.global_step)
        return training_step(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", counted_step)
    return steps


def text_of(inputs: dict) -> dict:
    """A batch without its molecules."""
    return {name: t for name, t in inputs.items() if not name.startswith("graph_")}


def gradients(model: MoraForCausalLM, inputs: dict) -> dict[str, torch.Tensor]:
    """Gradients of all trained parameters."""
    model.zero_grad()
    torch.manual_seed(0)  # for the dropout of some families
    model(**inputs, labels=inputs["input_ids"], use_cache=False).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def distinctness(model: MoraForCausalLM, inputs: dict) -> float:
    """Smallest distance between two molecules' generated weights, relative to their size."""
    with torch.no_grad():
        weights = model.encode_molecules(
            **{name: t for name, t in inputs.items() if name.startswith("graph_")}
        )
        if model.config.generator_type == "core":
            weights = weights - model.weight_generator.static_core.flatten()
        return (torch.pdist(weights).min() / weights.norm(dim=1).mean()).item()


def train_to_different_answers(model: MoraForCausalLM, inputs: dict, steps: int = 20) -> None:
    """Some steps with the quickstart's learning rates, in which the loss must fall."""
    model.train()
    generators = [*model.weight_generator.parameters(), *model.graph_encoder.parameters()]
    optimizer = torch.optim.AdamW(
        [
            {"params": list(model.tuner.parameters()), "lr": 1e-3},
            {"params": generators, "lr": 1e-4},
        ]
    )
    losses = []
    for _ in range(steps):
        loss = model(**inputs, labels=inputs["input_ids"], use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
