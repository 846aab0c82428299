# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The command that pretrains the graph encoder, and what its result is used for."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from conftest import MOLECULES, hub_environment
from conftest import run as run_script
from hub_server import HubServer
from safetensors.torch import load_file, save_file
from test_finetune import recipe  # noqa: F401  (a fixture)
from test_graph_pretraining import TINY, write_smiles
from test_qm9 import small_qm9  # noqa: F401  (a fixture)
from transformers import Trainer

from modeling_mora import (
    MoleculeFeatureExtractor,
    MoraForCausalLM,
    MoraGraphEncoder,
)
from training import finetune, prepare
from training.data.qm9 import load_qm9
from training.graph_encoder import check_graph_encoder, load_graph_encoder
from training.graph_pretraining.arguments import parse_arguments
from training.graph_pretraining.model import GraphPretrainingModel
from training.graph_pretraining.molecules import held_out_molecules
from training.pretrain_graph import main

RECIPE = Path(__file__).parents[1] / "training" / "recipes" / "pretrain_graph_qm9.yaml"


# The run.


@pytest.fixture(scope="module")
def molecules(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Chains with two ends: 100 molecules, one of them there twice, and two that are none."""
    ends = ["O", "N", "F", "C#N", "C=C", "c1ccccc1", "C(=O)O", "S", "Cl", "C(=O)N"]
    molecules = [f"{'C' * n}{end}" for n in range(1, 11) for end in ends]
    path = tmp_path_factory.mktemp("molecules") / "chains.smi"
    return write_smiles(path, [*molecules, "OC", "C1CC", "C(C"])


def arguments(molecules: str, folder: Path, **settings: object) -> list[str]:
    settings = {
        "output_dir": folder,
        "held_out_molecules": 20,
        "graph_config": json.dumps(TINY),
        "per_device_train_batch_size": 16,
        "max_steps": 120,
        "warmup_steps": 2,
        "learning_rate": 1e-2,
        "eval_steps": 20,
        "save_steps": 60,
        "save_total_limit": 2,
        "use_cpu": True,
        "report_to": "none",
        **settings,
    }
    return ["--molecules", molecules, *(f"--{key}={value}" for key, value in settings.items())]


@pytest.fixture(scope="module")
def run(molecules: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretraining") / "encoder"
    main(arguments(molecules, folder))
    return folder


def test_held_out_losses_fall_below_the_constant_prediction(run: Path):
    report = json.loads((run / "pretraining.json").read_text())
    history = json.loads((run / "trainer_state.json").read_text())["log_history"]
    first = next(entry for entry in history if "eval_loss" in entry)
    assert first["step"] == 20
    for task in ("descriptors", "morgan", "atoms", "bonds"):
        key = f"{task}_loss"
        assert report["scores"][key] < first[f"eval_{key}"]
        assert report["scores"][key] < 0.9 * report["constant_scores"][key]
    assert report["scores"]["descriptors_r2"] > 0.2 > report["constant_scores"]["descriptors_r2"]
    # Written beside the encoder alone.
    assert (run / "pretraining.png").read_bytes().startswith(b"\x89PNG")
    assert not list(run.glob("*.bin"))


def test_rows_are_counted_and_listed(run: Path, molecules: str):
    report = json.loads((run / "pretraining.json").read_text())
    counts = {"rows": 103, "rejected": 2, "duplicates": 1, "excluded": 0, "used": 100}
    assert report["sources"] == {molecules: counts}
    assert report["molecules"] == {"train": 80, "held_out": 20}
    rejected = [json.loads(line) for line in (run / "rejected.jsonl").read_text().splitlines()]
    assert [(r["row"], r["id"], r["value"]) for r in rejected] == [
        (103, "m101", "C1CC"),
        (104, "m102", "C(C"),
    ]
    assert "unclosed ring" in rejected[0]["reason"]


def test_saved_encoder_gives_the_same_states(run: Path):
    encoder = MoraGraphEncoder.from_pretrained(run)
    assert encoder.config.hidden_size == 16
    assert set(load_file(run / "model.safetensors")) == set(encoder.state_dict())
    model = GraphPretrainingModel.from_pretrained(run / "checkpoint-120")
    graph = MoleculeFeatureExtractor()(MOLECULES, return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(encoder(**graph), model.eval().graph_encoder(**graph))
    # A checkpoint holds the heads too, and its encoder can be had all the same.
    inside = load_graph_encoder(str(run / "checkpoint-120")).state_dict()
    assert all(torch.equal(tensor, inside[name]) for name, tensor in encoder.state_dict().items())


def test_resumed_run_ends_like_an_uninterrupted_one(
    run: Path, molecules: str, tmp_path: Path, steps_taken: list[int]
):
    resumed = tmp_path / "encoder"
    shutil.copytree(run / "checkpoint-60", resumed / "checkpoint-60")
    with pytest.raises(SystemExit, match="holds checkpoints of an earlier run"):
        main(arguments(molecules, resumed))
    main(arguments(molecules, resumed, resume_from_checkpoint="true"))
    assert steps_taken == list(range(60, 120))
    expected = load_file(run / "model.safetensors")
    found = load_file(resumed / "model.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    reports = [json.loads((one / "pretraining.json").read_text()) for one in (run, resumed)]
    assert reports[0]["scores"] == reports[1]["scores"]
    assert reports[0]["molecules_per_second"] > 0
    assert reports[1]["molecules_per_second"] is None


def test_too_many_bad_rows_stop_it(tmp_path: Path, molecules: str):
    with pytest.raises(SystemExit, match=r"2 of 103 examples were rejected \(1.9%\)"):
        main(arguments(molecules, tmp_path / "run", max_rejected=0.01))
    assert len((tmp_path / "run" / "rejected.jsonl").read_text().splitlines()) == 2
    with pytest.raises(SystemExit, match="100 molecules are left, and held_out_molecules=100"):
        main(arguments(molecules, tmp_path / "run", held_out_molecules=100))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 0}, "learning_rate=0.0: give a number above 0"),
        ({"held_out_molecules": 0}, "held_out_molecules=0"),
        ({"max_molecules": -1}, "max_molecules=-1"),
        ({"max_steps": 0}, "nothing to train"),
        ({"max_rejected": 2}, "max_rejected=2.0: give a share"),
        ({"graph_config": "{layers"}, "is not JSON"),
        ({"graph_config": '{"layers": 3}'}, "graph_config has 'layers': use form, hidden_size"),
        ({"graph_config": '{"hidden_size": 0}'}, "hidden_size"),
        ({"push_to_hub": True}, "would upload the heads too"),
        ({"exclude": "no_such_folder"}, "exclude='no_such_folder' does not exist"),
        ({"resume_from_checkpoint": "true"}, "no complete checkpoint-"),
    ],
)
def test_settings_that_cannot_work(molecules: str, tmp_path: Path, settings: dict, message: str):
    with pytest.raises(SystemExit, match=message):
        main(arguments(molecules, tmp_path / "run", **settings))


def test_molecules_are_needed(tmp_path: Path):
    with pytest.raises(SystemExit, match="molecules is missing: name a file"):
        main(["--output_dir", str(tmp_path)])
    with pytest.raises(SystemExit, match="no.smi does not exist"):
        main(["--molecules", "no.smi", "--output_dir", str(tmp_path)])


def test_shipped_recipe_is_valid(tmp_path: Path):
    args, training_args = parse_arguments([str(RECIPE), "--output_dir", str(tmp_path)])
    content = yaml.safe_load(RECIPE.read_text())
    assert content["output_dir"] == f"runs/{RECIPE.stem}"
    assert training_args.learning_rate == content["learning_rate"]
    assert args.molecules == ["qm9"]
    assert all((RECIPE.parents[2] / path).is_file() for path in args.exclude)
    assert not training_args.remove_unused_columns


# Molecules that are kept out.


@pytest.mark.usefixtures("small_qm9", "datasets_cache")
def test_test_molecules_of_a_recipe_and_of_prepared_data_are_kept_out(tmp_path: Path, tiny_base):
    sizes = {"train_molecules": 5, "validation_molecules": 2, "test_molecules": 3}
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps({"base": "x", "split_seed": 4, **sizes}))
    splits = load_qm9(train=5, validation=2, test=3, seed=4)
    held_out = {m for name in ("validation", "test") for m in splits[name]["molecule"]}
    assert held_out_molecules(str(path)) == held_out

    data = tmp_path / "data.yaml"
    split = {"method": "random", "sizes": {"validation": 2, "test": 4}}
    settings = {"sources": [{"source": "qm9"}], "split": split, "base": str(tiny_base)}
    data.write_text(json.dumps(settings | {"max_rejected": 0.1, "max_length": 512}))
    prepare.main([str(data), "--output_dir", str(tmp_path / "data")])
    from_prepared = held_out_molecules(str(tmp_path / "data"))
    assert len(from_prepared) == 6
    path2 = tmp_path / "prepared.yaml"
    path2.write_text(json.dumps({"prepared": str(tmp_path / "data")}))
    assert held_out_molecules(str(path2)) == from_prepared

    folder = tmp_path / "run"
    settings = {"held_out_molecules": 3, "max_rejected": 0.1, "max_steps": 1}
    main([*arguments("qm9", folder, **settings), "--exclude", str(path), str(tmp_path / "data")])
    counts = json.loads((folder / "pretraining.json").read_text())["sources"]["qm9"]
    excluded = held_out | from_prepared
    # Ethanol is there twice.
    assert counts["excluded"] == len(excluded) + ("CCO" in excluded)
    assert counts["used"] == 17 - len(excluded)
    for text in ("rank: 3", "- a", "{"):
        path.write_text(text)
        with pytest.raises(ValueError, match="recipe"):
            held_out_molecules(str(path))


# Its use.


@pytest.mark.usefixtures("small_qm9")
@pytest.mark.parametrize("frozen", [True, False])
def test_finetuning_starts_from_the_encoder(
    run: Path,
    recipe: Path,  # noqa: F811
    tmp_path: Path,
    frozen: bool,
):
    encoder = tmp_path / "encoder"
    shutil.copytree(run, encoder)
    settings = json.loads(recipe.read_text())
    del settings["graph_config"]
    settings |= {"graph_encoder": str(encoder), "freeze_graph_encoder": frozen}
    recipe.write_text(json.dumps(settings))
    started = {}
    train = Trainer.train

    def remember(self: Trainer, *args: object, **kwargs: object) -> object:
        state = self.model.graph_encoder.state_dict()
        started.update({name: tensor.clone() for name, tensor in state.items()})
        return train(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train", remember)
        finetune.main([str(recipe)])
    expected = load_file(encoder / "model.safetensors")
    assert all(torch.equal(started[name], tensor) for name, tensor in expected.items())

    shutil.rmtree(encoder)  # the checkpoint stands alone
    assert str(encoder) not in (tmp_path / "run" / "config.json").read_text()
    model = MoraForCausalLM.from_pretrained(tmp_path / "run")
    config = model.config.graph_config
    assert (config.hidden_size, config.num_layers) == (TINY["hidden_size"], TINY["num_layers"])
    state = model.graph_encoder.state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in expected) == frozen
    # And lends its encoder to the next one.
    lent = load_graph_encoder(str(tmp_path / "run")).state_dict()
    assert all(torch.equal(state[name], lent[name]) for name in state)


def test_graph_config_beside_an_encoder_is_refused(run: Path, recipe: Path):  # noqa: F811
    with pytest.raises(SystemExit, match="graph_encoder has its own graph_config"):
        finetune.main([str(recipe), "--graph_encoder", str(run)])


def test_encoders_that_cannot_be_had(run: Path, tiny_base: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no model and no graph encoder"):
        check_graph_encoder(str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="is neither a file of MoleculeSTM"):
        check_graph_encoder(str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="type 'llama' and no graph encoder"):
        check_graph_encoder(str(tiny_base))
    check_graph_encoder(str(run))

    broken = tmp_path / "broken"
    broken.mkdir()
    shutil.copy(run / "config.json", broken)
    tensors = load_file(run / "model.safetensors")
    del tensors["norm.weight"]
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"are incomplete: missing norm\.weight"):
        load_graph_encoder(str(broken))
    whole = (run / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(OSError, match="truncated or corrupt"):
        load_graph_encoder(str(broken))


FROM_HUB = """
import sys
import torch
from modeling_mora import MoraGraphEncoder
from training.graph_encoder import check_graph_encoder, load_graph_encoder

MoraGraphEncoder.from_pretrained(sys.argv[1]).push_to_hub("user/encoder")
check_graph_encoder("user/encoder")
expected = MoraGraphEncoder.from_pretrained(sys.argv[1]).state_dict()
found = load_graph_encoder("user/encoder").state_dict()
assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
try:
    check_graph_encoder("user/nothing")
except ValueError as error:
    assert "nor one on the Hub" in str(error), error
else:
    raise AssertionError("found an encoder that is not there")
"""


@pytest.mark.slow
def test_encoder_comes_from_the_hub(run: Path, hub: HubServer, tmp_path: Path):
    run_script(FROM_HUB, run, cwd=tmp_path, **hub_environment(hub, tmp_path / "home"))
