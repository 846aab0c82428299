# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The way over the Hub: pushed with this package, loaded without it, base and adapter by id."""

import json
import re
from pathlib import Path

import pytest
import torch
from conftest import hub_environment, run, run_without_package
from safetensors.torch import load

pytestmark = pytest.mark.slow

# Some answers of a random model may look the same ("�" is any broken character), not all four.
ROWS = [{"molecule": smiles, "text": "Q"} for smiles in ("CCO", "CC(=O)N", "Oc1ccccc1", "C1CCNCC1")]
ROWS.append({"text": "Q"})

# Three states of one adapter (tag `first`, branch `dev`, main), on a base that has moved on since.
PUSH = """
import json, sys
import torch
from huggingface_hub import HfApi
from transformers import AutoModelForCausalLM, AutoTokenizer
from modeling_mora import MoleculeFeatureExtractor, MoraForCausalLM, MoraPipeline, MoraProcessor

base_folder, out, scratch, rows = sys.argv[1:]
torch.manual_seed(0)
api, base = HfApi(), AutoModelForCausalLM.from_pretrained(base_folder)
base.push_to_hub("user/base")
AutoTokenizer.from_pretrained(base_folder).push_to_hub("user/base")
api.create_tag("user/base", tag="v1")

small = dict(rank=4, generator_dim=32, generator_heads=4, graph_config={"hidden_size": 32})
model = MoraForCausalLM.from_base("user/base", revision="v1", **small).eval()
processor = MoraProcessor(MoleculeFeatureExtractor(), AutoTokenizer.from_pretrained("user/base"))
pipe = MoraPipeline(model=model, processor=processor, device="cpu")
logits, answers = {}, {}

def train(name):
    with torch.no_grad():
        for delta in model.tuner.deltas.values():
            delta.B.normal_(std=0.1)
    answers[name] = pipe(json.loads(rows), max_new_tokens=6)
    # Last, as what is saved of a tokenizer says whether it has padded.
    inputs = processor(text=["Question", "Q"], molecules=["CCO", None], return_tensors="pt")
    with torch.no_grad():
        logits[name] = model(**inputs).logits

train("first")
model.push_to_hub("user/mora")
processor.push_to_hub("user/mora")
api.create_tag("user/mora", tag="first")
api.create_branch("user/mora", branch="dev")
train("dev")
model.push_to_hub("user/mora", revision="dev")
train("main")
model.push_to_hub("user/mora")
model.save_pretrained(scratch + "/full", save_base=True, push_to_hub=True, repo_id="user/full")
processor.push_to_hub("user/full")
pipe.push_to_hub("user/by-pipeline")

with torch.no_grad():
    for parameter in base.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.1)
base.push_to_hub("user/base")

base.push_to_hub("user/private-base", private=True)
MoraForCausalLM.from_base("user/private-base", **small).push_to_hub("user/on-private")

torch.save(logits, out + "/logits.pt")
with open(out + "/answers.json", "w") as file:
    json.dump(answers, file)
"""

LOAD = """
import importlib.util, json, sys
import torch
assert importlib.util.find_spec("modeling_mora") is None, "the package must not be importable"
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoProcessor, pipeline

out, commit, rows = sys.argv[1:]
remote = dict(trust_remote_code=True)
processor = AutoProcessor.from_pretrained("user/mora", **remote)
inputs = processor(text=["Question", "Q"], molecules=["CCO", None], return_tensors="pt")
logits, revisions = {}, {}

def load(name, auto, repo, **kwargs):
    model = auto.from_pretrained(repo, **remote, **kwargs).eval()
    with torch.no_grad():
        logits[name] = model(**inputs).logits
    return model

config = AutoConfig.from_pretrained("user/mora", **remote)
load("AutoModel", AutoModel, "user/mora")
load("full", AutoModelForCausalLM, "user/full")
load("by-pipeline", AutoModelForCausalLM, "user/by-pipeline")
load("branch", AutoModelForCausalLM, "user/mora", revision="dev")
load("commit", AutoModelForCausalLM, "user/mora", revision=commit)
load("tag", AutoModelForCausalLM, "user/mora", revision="first")
model = load("AutoModelForCausalLM", AutoModelForCausalLM, "user/mora")

answers = {}
for name, kwargs in {"main": {}, "first": {"revision": "first"}}.items():
    pipe = pipeline(model="user/mora", device="cpu", **kwargs, **remote)
    answers[name] = pipe(json.loads(rows), batch_size=2, max_new_tokens=6)
    repr(pipe.model.config)

model.push_to_hub("user/again")
processor.push_to_hub("user/again")
torch.save(logits, out + "/logits.pt")
with open(out + "/report.json", "w") as file:
    base = [config.base_model_name_or_path, config.base_revision]
    json.dump({"answers": answers, "base": base}, file)
"""

LOAD_OFFLINE = """
import json, sys
from transformers import pipeline

answers, rows = sys.argv[1:]
pipe = pipeline(model="user/mora", device="cpu", trust_remote_code=True)
with open(answers) as file:
    expected = json.load(file)["main"]
assert pipe(json.loads(rows), max_new_tokens=6) == expected
"""

BAD_BASE = """
import os, sys
import pytest
from transformers import AutoModelForCausalLM
from modeling_mora import MoraForCausalLM

with pytest.raises(OSError, match="'user/private-base'.*could not be loaded.*token") as error:
    AutoModelForCausalLM.from_pretrained("user/on-private")
with pytest.raises(OSError, match="'user/none'.*could not be loaded"):
    MoraForCausalLM.from_base("user/none")
with pytest.raises(OSError, match="'user/base' .revision nowhere. could not be loaded"):
    MoraForCausalLM.from_base("user/base", revision="nowhere")
with pytest.raises(ValueError, match="trained on other base weights"):
    AutoModelForCausalLM.from_pretrained("user/mora", base_revision="main")
AutoModelForCausalLM.from_pretrained("user/on-private", token="hf_localtest")
"""


@pytest.fixture(scope="module")
def pushed(hub, tiny_base, tmp_path_factory) -> Path:
    """Folder of what the pushed models say; the repositories are in `hub`."""
    out = tmp_path_factory.mktemp("pushed")
    run(PUSH, tiny_base, out, out, json.dumps(ROWS), cwd=out, **hub_environment(hub, out / "home"))
    return out


@pytest.fixture(scope="module")
def loaded(hub, pushed, tmp_path_factory) -> Path:
    """Folder of what a fresh process without this package got from the Hub."""
    out = tmp_path_factory.mktemp("loaded")
    commit = hub.repositories["user/mora"].tags["first"]
    environment = hub_environment(hub, out / "home")
    run_without_package(LOAD, out, commit, json.dumps(ROWS), cwd=out, **environment)
    return out


def logits_in(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "logits.pt", weights_only=True)


def config_of(hub, name: str, revision: str = "main") -> dict:
    return json.loads(hub.repositories[name].files(revision)["config.json"])


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("AutoModel", "main"),
        ("AutoModelForCausalLM", "main"),
        ("full", "main"),
        ("by-pipeline", "main"),
        ("branch", "dev"),
        ("tag", "first"),
        ("commit", "first"),
    ],
)
def test_loaded_models_answer_as_pushed(pushed, loaded, name, state):
    expected = logits_in(pushed)
    torch.testing.assert_close(logits_in(loaded)[name], expected[state])
    # The states differ where there is a molecule, and only there.
    for other in expected.keys() - {state}:
        assert not torch.allclose(expected[other][0], expected[state][0], atol=1e-2)
        assert torch.equal(expected[other][1], expected[state][1])


def test_pipeline_by_hub_id(pushed, loaded):
    expected = json.loads((pushed / "answers.json").read_text())
    answers = json.loads((loaded / "report.json").read_text())["answers"]
    assert answers == {name: expected[name] for name in ("main", "first")}
    assert expected["first"][:-1] != expected["main"][:-1]
    assert expected["first"][-1] == expected["main"][-1]  # without a molecule it is the base


def test_what_was_loaded_once_loads_without_the_hub(hub, pushed, loaded, tmp_path):
    environment = hub_environment(hub, loaded / "home")
    environment |= {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    arguments = pushed / "answers.json", json.dumps(ROWS)
    run_without_package(LOAD_OFFLINE, *arguments, cwd=tmp_path, **environment)


def test_the_base_is_named_by_its_commit(hub, loaded):
    base = hub.repositories["user/base"]
    then = base.tags["v1"]
    assert base.branches["main"] != then
    assert json.loads((loaded / "report.json").read_text())["base"] == ["user/base", then]
    for revision in ("first", "dev", "main"):
        assert config_of(hub, "user/mora", revision)["base_revision"] == then


@pytest.mark.parametrize("name", ["user/mora", "user/full", "user/by-pipeline", "user/again"])
def test_a_pushed_repository_is_complete(hub, loaded, name):
    files = hub.repositories[name].files()
    config = config_of(hub, name)
    assert set(config["auto_map"]) == {
        "AutoConfig",
        "AutoFeatureExtractor",
        "AutoModel",
        "AutoModelForCausalLM",
        "AutoProcessor",
    }
    (task,) = config["custom_pipelines"].values()
    for reference in [*config["auto_map"].values(), task["impl"]]:
        module, name_in_it = reference.split(".")
        assert f"class {name_in_it}" in files[f"{module}.py"].decode()
    # Every file that another one imports.
    for path, data in files.items():
        if path.endswith(".py"):
            for module in re.findall(r"^from \.(\w+) import", data.decode(), re.MULTILINE):
                assert f"{module}.py" in files, f"{path} imports {module}"
    assert "tasks_mora.py" in files
    assert "generation_config.json" in files
    includes_base = name == "user/full"
    assert config.get("includes_base", False) is includes_base
    weights = load(files["model.safetensors"])
    assert any(tensor.startswith("language_model.") for tensor in weights) is includes_base
    if not includes_base:
        assert {"processor_config.json", "tokenizer_config.json", "tokenizer.json"} <= set(files)


def test_pushed_again_from_remote_code_it_is_the_same(hub, loaded):
    first, again = (hub.repositories[name].files() for name in ("user/mora", "user/again"))
    assert first.keys() == again.keys()
    # transformers notes in it how the tokenizer was loaded.
    for path in first.keys() - {"tokenizer_config.json"}:
        assert first[path] == again[path], path


@pytest.mark.parametrize("name", ["user/mora", "user/full", "user/by-pipeline", "user/again"])
def test_nothing_pushed_names_a_place_on_this_machine(hub, loaded, name):
    def strings(value):
        if isinstance(value, dict):
            return [s for item in value.items() for s in strings(item)]
        if isinstance(value, (list, tuple)):
            return [s for item in value for s in strings(item)]
        return [value] if isinstance(value, str) else []

    files = hub.repositories[name].files()
    for path in files:
        if path.endswith("config.json"):
            absolute = [s for s in strings(json.loads(files[path])) if s.startswith("/")]
            assert absolute == [], path
    assert config_of(hub, name)["base_model_name_or_path"] == "user/base"


def test_a_bad_base_is_a_clear_error(hub, pushed, tmp_path):
    """Private for whoever has no token, missing, without that revision, with other weights."""
    environment = hub_environment(hub, tmp_path / "home") | {"HF_TOKEN": ""}
    run(BAD_BASE, cwd=tmp_path, **environment)
