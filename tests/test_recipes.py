# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The shipped recipes: each is valid, and each small one trains the real SmolLM2 on its task."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from test_moleculestm import checkpoint, reference, save  # noqa: F401  (fixtures)
from test_qm9 import small_qm9  # noqa: F401  (a fixture)
from transformers import LlamaConfig, pipeline

from modeling_mora import MoraConfig, MoraForCausalLM, MoraGraphEncoder, MoraProcessor
from modeling_mora.base_models_mora import resolve_base
from modeling_mora.configuration_mora import PAPER_SETTINGS
from modeling_mora.tasks_mora import TASKS
from training import finetune, prepare
from training.arguments import parse_arguments
from training.data.prepared import load_prepared
from training.data.settings import SHARED_KEYS, read_settings

FOLDER = Path(__file__).parents[1] / "training" / "recipes"
# Those of training.pretrain_graph are tested in test_pretrain_graph.py.
RECIPES = sorted(set(FOLDER.glob("*.yaml")) - set(FOLDER.glob("pretrain_graph_*.yaml")))
SMALL = {task: FOLDER / f"smollm2_{task}.yaml" for task in TASKS}
PAPER = {task: FOLDER / f"paper_{task}.yaml" for task in TASKS}
CPU = ["--use_cpu", "true", "--report_to", "none"]

ALCOHOLS = ["C" * n + "O" for n in range(1, 16)]


@pytest.fixture
def parse(tmp_path: Path) -> Callable:
    """Read a recipe as `training.finetune` does, where the files that it names are there."""
    (tmp_path / "prepared.json").write_text(json.dumps({"rows": {"train": 1, "validation": 1}}))
    (tmp_path / "molecule_model.pth").touch()

    def parse(path: Path) -> tuple:
        recipe = yaml.safe_load(path.read_text())
        given = {"prepared": tmp_path, "graph_encoder": tmp_path / "molecule_model.pth"}
        flags = [part for key in given if key in recipe for part in (f"--{key}", str(given[key]))]
        return parse_arguments([str(path), "--output_dir", str(tmp_path / "run"), *flags, *CPU])

    return parse


def test_each_task_has_a_small_and_a_published_recipe():
    assert {*SMALL.values(), *PAPER.values()} <= set(RECIPES)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_valid(path: Path, parse: Callable):
    model_args, _, training_args = parse(path)
    text_config = LlamaConfig(num_hidden_layers=32)
    MoraConfig(text_config=text_config, **model_args.mora_settings())
    recipe = yaml.safe_load(path.read_text())
    assert recipe["output_dir"] == f"runs/{path.stem}"
    assert training_args.learning_rate == recipe["learning_rate"]  # YAML reads 1e-3 as text


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("recipes", [SMALL, PAPER], ids=["smollm2", "paper"])
def test_data_sections_are_valid(recipes: dict, task: str):
    path = recipes[task]
    settings, prepared = read_settings(path)
    recipe = yaml.safe_load(path.read_text())
    assert prepared == Path(f"runs/data/{path.stem}")
    for key in SHARED_KEYS:
        assert key not in recipe["data"]
        assert key not in recipe or getattr(settings, key) == recipe[key]
    (entry,) = settings.sources
    assert entry.get("task", task) == task


@pytest.mark.parametrize("task", TASKS)
def test_published_hyper_parameters(task: str, parse: Callable):
    model_args, data_args, training_args = parse(PAPER[task])
    assert model_args.mora_settings() == PAPER_SETTINGS
    assert model_args.generator_learning_rate is None
    assert data_args.max_length == 2048
    published = {
        "learning_rate": 2e-5,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.03,
        "weight_decay": 0.0,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 4,
        "bf16": True,
    }
    assert {key: getattr(training_args, key) for key in published} == published
    epochs = {
        "forward_reaction_prediction": 15,
        "retrosynthesis": 20,
        "reagent_prediction": 20,
        "property_prediction": 10,
        "molecule_captioning": 30,
    }
    assert training_args.num_train_epochs == epochs.get(task, 10)
    (entry,) = read_settings(PAPER[task])[0].sources
    assert (entry["source"] == "mol_instructions") == (task in epochs)


def test_published_recipes_differ_in_data_and_epochs_alone():
    recipes = [yaml.safe_load(path.read_text()) for path in PAPER.values()]
    for recipe in recipes:
        for key in ("data", "prepared", "output_dir", "num_train_epochs"):
            recipe.pop(key)
    assert all(recipe == recipes[0] for recipe in recipes)


def test_chat_of_vicuna(tokenizer):
    template = yaml.safe_load(PAPER["molecule_qa"].read_text())["chat_template"]
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    chat = tokenizer.apply_chat_template(turns, tokenize=False, chat_template=template)
    assert chat == (
        "<|im_start|>A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions. "
        "USER: Why? ASSISTANT: So.<|im_end|>"
    )


@pytest.mark.usefixtures("datasets_cache")
def test_a_published_recipe_runs_on_a_tiny_base(tiny_base, checkpoint, save, tmp_path: Path):  # noqa: F811
    """From the published data's form through MoleculeSTM's encoder to a checkpoint."""
    rows = [
        {
            "instruction": "Predict the product.",
            "input": "[C]" * n + "[O].[C][O]",
            "output": "[C]" * n + "[O][C]",
            "metadata": {"task": "forward reaction prediction", "split": "train"},
        }
        for n in range(1, 11)
    ]
    data = tmp_path / "forward_reaction_prediction.json"
    data.write_text(json.dumps(rows))
    path, prepared, run = PAPER["forward_reaction_prediction"], tmp_path / "data", tmp_path / "run"
    recipe = yaml.safe_load(path.read_text()) | {"base": str(tiny_base)}
    path = tmp_path / path.name
    path.write_text(yaml.safe_dump(recipe))
    prepare.main([str(path), "--data", str(data), "--output_dir", str(prepared)])
    assert "[C]" in load_prepared(prepared).splits["train"][0]["prompt"]
    encoder = save(checkpoint)
    settings = {"prepared": prepared, "output_dir": run, "graph_encoder": encoder, "max_steps": 2}
    settings |= {"rank": 2, "layer_stride": 2, "generator_dim": 16, "generator_depth": 1}
    settings |= {"generator_heads": 2}
    finetune.main([str(path), *CPU, *(f"--{key}={value}" for key, value in settings.items())])
    model = MoraForCausalLM.from_pretrained(run)
    expected = MoraGraphEncoder.from_moleculestm(encoder).state_dict()
    found = model.graph_encoder.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert MoraProcessor.from_pretrained(run).tokenizer.chat_template == recipe["chat_template"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--graph_encoder", "no.pth"], "graph_encoder='no.pth' is no file: download"),
        (["--graph_encoder", "no.pth", "--graph_config", "{}"], "give only one of them"),
    ],
)
def test_graph_encoders_that_cannot_be_had(flags: list[str], message: str, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        parse_arguments(["--output_dir", str(tmp_path), *flags])


def test_a_data_section_is_not_passed_over(tmp_path: Path):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"output_dir: {tmp_path / 'run'}\ndata: {{sources: [{{source: uspto}}]}}\n")
    with pytest.raises(ValueError, match="has a data section, but `prepared`.*--prepared DIR"):
        parse_arguments([str(path)])


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([{"source": "qm9"}], "'qm9' has no setting 'data'"),
        ([{"source": "qm9"}, {"source": "uspto"}], "--data is for one source, but there are 2"),
    ],
)
def test_data_flag_without_a_place(tmp_path: Path, sources: list, message: str):
    path = tmp_path / "data.yaml"
    path.write_text(yaml.safe_dump({"sources": sources}))
    with pytest.raises(SystemExit, match=message):
        prepare.main([str(path), "--data", "x.csv", "--output_dir", str(tmp_path / "out")])


def write_reactions(folder: Path) -> Path:
    """Esters of alcohols and acetic acid, with an id and a solvent, in two files."""
    rows = [
        {
            "id": f"ester-{i}",
            "reactants": f"{alcohol}.CC(=O)O",
            "reagents": "ClCCl",
            "product": f"{alcohol}C(C)=O",
        }
        for i, alcohol in enumerate(ALCOHOLS)
    ]
    (folder / "uspto").mkdir()
    for name, part in {"train": rows[:12], "valid": rows[12:]}.items():
        lines = "".join(f"{json.dumps(row)}\n" for row in part)
        (folder / "uspto" / f"{name}.jsonl").write_text(lines)
    return folder / "uspto"


def write_csv(path: Path, columns: list[str], rows: list[list]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def write_labels(folder: Path) -> Path:
    rows = [[i, f"alcohol {i}", i % 2, alcohol] for i, alcohol in enumerate(ALCOHOLS)]
    rows += [[20 + n, "ring", n % 2, f"c1ccccc1{'C' * n}"] for n in range(1, 4)]
    return write_csv(folder / "BBBP.csv", ["num", "name", "p_np", "smiles"], rows)


def write_captions(folder: Path) -> Path:
    folder = folder / "ChEBI-20_data"
    folder.mkdir()
    rows = [f"{n}\t{alcohol}\tAn alcohol.\n" for n, alcohol in enumerate(ALCOHOLS)]
    for name, part in {"train": rows[:10], "validation": rows[10:13], "test": rows[13:]}.items():
        (folder / f"{name}.txt").write_text("CID\tSMILES\tdescription\n" + "".join(part))
    return folder


def write_questions(folder: Path) -> Path:
    rows = [[alcohol, "What is it?", "An alcohol."] for alcohol in ALCOHOLS]
    return write_csv(folder / "molecule_qa.csv", ["smiles", "question", "answer"], rows)


# The file of each task's source, and what the question takes besides the molecule.
SMALL_DATA = {
    "forward_reaction_prediction": (write_reactions, "CO.CC(=O)O", {"reagents": "ClCCl"}),
    "retrosynthesis": (write_reactions, "COC(C)=O", {}),
    "reagent_prediction": (write_reactions, "CO.CC(=O)O>>COC(C)=O", {}),
    "property_prediction": (None, "CCO", {"property": "gap"}),
    "property_classification": (write_labels, "CCO", {"label": "BBBP"}),
    "molecule_captioning": (write_captions, "CCO", {}),
    "molecule_qa": (write_questions, "CCO", {"question": "What is it?"}),
}


@pytest.mark.slow
@pytest.mark.usefixtures("small_qm9", "datasets_cache")
@pytest.mark.parametrize("task", TASKS)
def test_small_recipes_train_the_real_model(task: str, tmp_path: Path):
    """Two steps on a few rows in the form of the task's source; then the checkpoint is asked."""
    resolve_base("smollm2")
    write, molecule, options = SMALL_DATA[task]
    path, prepared, run = str(SMALL[task]), str(tmp_path / "data"), str(tmp_path / "run")
    flags = ["--data", str(write(tmp_path))] if write else []
    if task == "property_prediction":
        # QM9's 19 molecules of the test are fewer than the recipe's splits take.
        recipe = yaml.safe_load(SMALL[task].read_text())
        recipe["data"] |= {"split": {"method": "random"}, "max_rejected": 0.1}
        path = str(tmp_path / "recipe.yaml")
        Path(path).write_text(yaml.safe_dump(recipe))
    prepare.main([path, "--output_dir", prepared, "--num_proc", "1", *flags])
    assert set(load_prepared(prepared).tasks) == {task}
    steps = ["--max_steps", "2", "--per_device_train_batch_size", "2", "--logging_steps", "1"]
    finetune.main([path, "--prepared", prepared, "--output_dir", run, *steps, *CPU])
    history = json.loads((Path(run) / "trainer_state.json").read_text())["log_history"]
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert len(losses) == 2 and all(0 < loss < 20 for loss in losses)
    pipe = pipeline(model=run, trust_remote_code=True)
    (answer,) = pipe({"molecule": molecule, **options}, task=task, max_new_tokens=4)
    assert set(answer) == {"generated_text", "value"}
