# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Pretraining of the graph encoder: what it learns from, what is hidden, the run, its use."""

import csv
import gzip
import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import MOLECULES, hub_environment
from conftest import run as run_script
from datasets import Dataset
from hub_server import HubServer
from rdkit import Chem
from rdkit.Chem import Descriptors, rdMolDescriptors
from safetensors.torch import load_file, save_file
from test_finetune import recipe  # noqa: F401  (a fixture)
from test_qm9 import small_qm9  # noqa: F401  (a fixture)
from transformers import Trainer

from modeling_mora import (
    MoleculeFeatureExtractor,
    MoraForCausalLM,
    MoraGraphConfig,
    MoraGraphEncoder,
)
from training import finetune, prepare
from training.data.qm9 import load_qm9
from training.data.rejections import Rejections
from training.graph_encoder import check_graph_encoder, load_graph_encoder
from training.graph_pretraining import targets
from training.graph_pretraining.arguments import parse_arguments
from training.graph_pretraining.collator import (
    HIDDEN_ATOM,
    HIDDEN_BOND,
    IGNORE_INDEX,
    PretrainingCollator,
)
from training.graph_pretraining.model import GraphPretrainingModel, standardise
from training.graph_pretraining.molecules import draw_rows, held_out_molecules, open_molecules
from training.graph_pretraining.scores import (
    average_precision,
    constant_scores,
    make_scorer,
    mean_r2,
)
from training.graph_pretraining.targets import DESCRIPTORS, MORGAN_BITS, build_targets, measure
from training.pretrain_graph import main

RECIPE = Path(__file__).parents[1] / "training" / "recipes" / "pretrain_graph_qm9.yaml"
TINY = {"hidden_size": 16, "num_layers": 2}
BATCH = 10


def rows_of(molecules: list[str | None], names: list[str] | None = None) -> Dataset:
    count = len(molecules)
    columns = {"molecule": molecules, "name": names or [""] * count, "row": range(1, count + 1)}
    return Dataset.from_dict({**columns, "split": ["all"] * count, "source": ["test"] * count})


def build(molecules: list[str | None], **kwargs: object) -> tuple[Dataset, Rejections]:
    rejections = Rejections("test", max_rejected=1)
    rows = rows_of(molecules, kwargs.pop("names", None))
    built = build_targets(rows, MoleculeFeatureExtractor(), {"test": rejections}, **kwargs)
    return built.with_format("numpy"), rejections


@pytest.fixture(scope="module")
def built() -> Dataset:
    return build(MOLECULES)[0]


@pytest.fixture(scope="module")
def model(built: Dataset) -> GraphPretrainingModel:
    torch.manual_seed(0)
    return GraphPretrainingModel.from_statistics(MoraGraphConfig(**TINY), measure(built)).eval()


def collate(rows: list[dict], seed: int = 0) -> dict[str, torch.Tensor]:
    return PretrainingCollator(MoleculeFeatureExtractor(), seed)(rows)


# What is learned.


def test_targets_are_rdkits_own(built: Dataset):
    functions = dict(Descriptors.descList)
    assert len(set(DESCRIPTORS)) == len(DESCRIPTORS)
    for smiles, row in zip(MOLECULES, built, strict=True):
        mol = Chem.MolFromSmiles(smiles)
        expected = np.array([functions[name](mol) for name in DESCRIPTORS])
        found = row["descriptors"]
        assert np.allclose(found, expected, rtol=1e-4, atol=1e-4, equal_nan=True), smiles
        bits = rdMolDescriptors.GetMorganFingerprintAsBitVect(mol, 2, MORGAN_BITS).GetOnBits()
        assert row["morgan_bits"].tolist() == list(bits)
        assert row["smiles"] == Chem.CanonSmiles(smiles)
        graph = MoleculeFeatureExtractor().featurize(smiles)
        assert row["atoms"] == len(graph["graph_atoms"])
        for name, array in graph.items():
            assert np.array_equal(row[name].reshape(array.shape), array)


def test_descriptors_that_rdkit_cannot_tell_are_missing(monkeypatch: pytest.MonkeyPatch):
    stibine = build(["C[Sb](C)C"])[0][0]
    found = dict(zip(DESCRIPTORS, stibine["descriptors"], strict=True))
    assert math.isnan(found["MaxPartialCharge"])  # there is none for antimony
    assert found["HeavyAtomCount"] == 4

    def broken(mol: Chem.Mol) -> float:
        raise ValueError("no such thing")

    functions = [lambda mol: math.inf, broken, lambda mol: 1e300, lambda mol: 2]
    monkeypatch.setattr(targets, "_descriptor_functions", lambda: functions)
    assert str(targets.calculate_descriptors(None)) == "[nan, nan, nan, 2.0]"


def test_missing_and_constant_descriptors_bear_no_loss(built: Dataset, model):
    batch = collate([built[i] for i in range(4)])
    config = model.config
    constant = DESCRIPTORS.index("SlogP_VSA9")  # 0 in all molecules
    assert config.descriptor_std[constant] == 0
    varying = DESCRIPTORS.index("MolWt")
    before = model(**batch).loss
    batch["descriptors"][:, constant] = 1e3
    assert torch.equal(model(**batch).loss, before)
    batch["descriptors"][:, varying] = math.nan
    without = model(**batch).loss
    assert without.isfinite() and not torch.equal(without, before)
    target = standardise(batch["descriptors"], config)
    assert target[:, [constant, varying]].isnan().all()
    batch["descriptors"][:] = math.nan
    assert model(**batch).loss.isfinite()


def test_statistics_are_those_of_the_molecules(built: Dataset):
    found = measure(built)
    descriptors = np.stack([row["descriptors"] for row in built]).astype(np.float64)
    assert np.allclose(found.descriptor_mean, np.nanmean(descriptors, axis=0), atol=1e-6)
    assert np.allclose(found.descriptor_std, np.nanstd(descriptors, axis=0), atol=1e-4)
    mols = [Chem.MolFromSmiles(smiles) for smiles in MOLECULES]
    elements = [atom.GetAtomicNum() for mol in mols for atom in mol.GetAtoms()]
    assert found.mean_atoms == len(elements) / len(mols)
    assert found.atom_frequency[5] == elements.count(6) / len(elements)
    doubles = [b.GetBondType() == Chem.BondType.DOUBLE for m in mols for b in m.GetBonds()]
    assert found.bond_frequency[1] == sum(doubles) / len(doubles)
    bit = built[2]["morgan_bits"][0]
    assert found.morgan_frequency[bit] == np.mean([bit in row["morgan_bits"] for row in built])


def test_bad_rows_are_rejections():
    molecules = ["CCO", "C1CC", "", None, "*C", "C(C)(C)(C)(C)C", "CC"]
    names = ["", "ring", "", "", "", "", "|$R1$|"]
    found, rejections = build(molecules, names=names)
    assert found["smiles"][:].tolist() == ["CCO"]
    assert (rejections.accepted, rejections.lost) == (1, 6)
    kinds = " ".join(rejections.kinds)
    for reason in ("unclosed ring", "is empty", "placeholder", "valence", "CXSMILES"):
        assert reason in kinds


@pytest.mark.usefixtures("datasets_cache")
def test_processes_and_a_second_start_change_nothing(monkeypatch: pytest.MonkeyPatch):
    molecules = [*MOLECULES, "C1CC", "CCCCCCCO"]
    calls = []
    build_row = targets._build_row
    monkeypatch.setattr(targets, "_build_row", lambda *args: calls.append(args) or build_row(*args))
    first, _ = build(molecules)
    assert len(calls) == len(molecules)
    again, rejections = build(molecules)
    assert len(calls) == len(molecules)
    assert rejections.lost == 1  # counted again, though nothing was computed
    monkeypatch.setattr(targets, "code_fingerprint", lambda read: "changed code")
    third, _ = build(molecules, num_proc=2)
    for one in (again, third):
        assert len(one) == len(first)
        for row, expected in zip(one, first, strict=True):
            assert all(np.array_equal(row[k], expected[k]) for k in ("smiles", "morgan_bits"))


# What is hidden.


def test_no_graph_holds_what_stands_for_hidden():
    extract = MoleculeFeatureExtractor()
    molecules = open_molecules("nci")["molecule"][::25]
    molecules += [*MOLECULES, "[NH3]->[Pt]", "C/C=C/C", "[Og]"]
    for molecule in molecules:
        if Chem.MolFromSmiles(molecule) is None:
            continue
        graph = extract.featurize(molecule)
        assert (graph["graph_atoms"][:, 0] != HIDDEN_ATOM[0].item()).all()
        assert not (graph["graph_bond_features"] == HIDDEN_BOND.numpy()).all(axis=1).any()


def test_atoms_and_all_their_bonds_are_hidden(built: Dataset):
    rows = [built[i] for i in range(len(built))]
    batch = collate(rows)
    hidden = batch["atom_types"] != IGNORE_INDEX
    for row, chosen in zip(rows, hidden, strict=True):
        assert chosen.sum() == max(1, round(0.15 * row["atoms"]))
        assert not chosen[row["atoms"] :].any()
    assert torch.equal(batch["atom_types"][hidden], batch["graph_atoms"][..., 0][hidden])
    assert (batch["hidden_atoms"][hidden] == HIDDEN_ATOM).all()
    assert torch.equal(batch["hidden_atoms"][~hidden], batch["graph_atoms"][~hidden])
    labelled = 0
    for b, row in enumerate(rows):
        for e in range(len(row["graph_bond_features"]) // 3):
            source, target = batch["graph_bonds"][b, :, e]
            touches = bool(hidden[b, source] or hidden[b, target])
            features = batch["hidden_bond_features"][b, e]
            expected = HIDDEN_BOND if touches else batch["graph_bond_features"][b, e]
            assert torch.equal(features, expected)
            has_label = batch["bond_types"][b, e] != IGNORE_INDEX
            assert has_label == (touches and e % 2 == 0)
            labelled += int(has_label)
    assert labelled > 0
    assert (batch["bond_types"][~batch["graph_bond_mask"]] == IGNORE_INDEX).all()


def test_what_is_hidden_does_not_reach_the_prediction(built: Dataset, model):
    """Other elements and bonds in the hidden places give the same states, bit by bit."""
    rows = [{k: np.array(v) for k, v in built[i].items()} for i in range(BATCH)]
    for row in rows:
        row["smiles"] = str(row["smiles"])
    batch = collate(rows)
    hidden = batch["atom_types"] != IGNORE_INDEX
    touched = (batch["hidden_bond_features"] != batch["graph_bond_features"]).any(-1)
    others = []
    generator = np.random.default_rng(0)
    for b, row in enumerate(rows):
        other = dict(row)
        atoms = row["graph_atoms"].reshape(-1, 9).copy()
        for atom in hidden[b, : len(atoms)].nonzero():
            atoms[atom] = (atoms[atom] + 1 + generator.integers(0, 2, 9)) % [
                *(118, 4, 11, 11, 9, 5, 5, 2, 2)
            ]
        bonds = row["graph_bond_features"].reshape(-1, 3).copy()
        for bond in touched[b, : len(bonds)].nonzero():
            bonds[bond] = (bonds[bond] + 1) % [4, 5, 2]
        other |= {"graph_atoms": atoms.flatten(), "graph_bond_features": bonds.flatten()}
        others.append(other)
    changed = collate(others)
    assert not torch.equal(changed["graph_atoms"], batch["graph_atoms"])
    assert not torch.equal(changed["atom_types"], batch["atom_types"])
    assert not torch.equal(changed["bond_types"], batch["bond_types"])

    encoded = []

    def remember(module: torch.nn.Module, args: tuple, output: torch.Tensor) -> None:
        encoded.append(output.detach())

    handle = model.graph_encoder.register_forward_hook(remember)
    model(**batch)
    model(**changed)
    handle.remove()
    whole, copy, other_whole, other_copy = encoded
    assert torch.equal(copy, other_copy)
    assert not torch.equal(whole, other_whole)  # where nothing is hidden, it shows


def test_what_is_hidden_depends_on_batch_and_seed_alone(built: Dataset):
    rows = [built[i] for i in range(BATCH)]
    first = collate(rows)
    torch.manual_seed(123)
    assert torch.equal(collate(rows)["atom_types"], first["atom_types"])
    assert not torch.equal(collate(rows, seed=1)["atom_types"], first["atom_types"])
    turned = collate([*rows[1:], rows[0]])["atom_types"].roll(1, dims=0)
    assert not torch.equal(turned, first["atom_types"])


def test_a_row_does_not_depend_on_its_batch(built: Dataset, model):
    together = model(**collate([built[i] for i in range(BATCH)]))
    for i in range(BATCH):
        alone = model(**collate([built[i]]))
        for name in ("descriptors", "morgan_logits"):
            torch.testing.assert_close(together[name][i], alone[name][0], atol=1e-5, rtol=1e-4)


def test_a_molecule_is_mean_and_sum_of_its_atoms(model):
    states = torch.zeros(1, 3, 16)
    states[0, 0], states[0, 1] = 1.0, 3.0
    pooled = model.pool(states, torch.tensor([[True, True, False]]))
    assert torch.equal(pooled[0, :16], torch.full((16,), 2.0))
    torch.testing.assert_close(pooled[0, 16:], torch.full((16,), 4.0 / model.config.mean_atoms))


# Scores.


def test_scores_are_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(0)
    labels = (generator.random((40, 30)) < 0.1).astype(np.float32)
    # Rounded, so that some are equal.
    scores = (generator.random((40, 30)) + 0.3 * labels).round(1).astype(np.float32)
    expected = metrics.average_precision_score(labels.ravel(), scores.ravel())
    assert average_precision(scores, labels) == pytest.approx(expected)
    assert math.isnan(average_precision(scores, np.zeros_like(labels)))
    target = generator.normal(size=(50, 4)).astype(np.float32)
    predicted = target + generator.normal(size=(50, 4)).astype(np.float32)
    assert mean_r2(predicted, target) == pytest.approx(metrics.r2_score(target, predicted))
    target[7, 1] = math.nan
    target[:, 2] = 1.0
    known = np.delete(np.arange(50), 7)
    each = [metrics.r2_score(target[:, 0], predicted[:, 0])]
    each += [metrics.r2_score(target[known, 1], predicted[known, 1])]
    each += [metrics.r2_score(target[:, 3], predicted[:, 3])]
    assert mean_r2(predicted, target) == pytest.approx(np.mean(each))


def test_scores_of_a_model_that_predicts_the_constant(built: Dataset, model):
    """Losses of a model whose heads say the constant prediction are those of `constant_scores`."""
    constant = GraphPretrainingModel.from_statistics(MoraGraphConfig(**TINY), measure(built)).eval()
    with torch.no_grad():
        heads = (constant.descriptor_head[-1], constant.morgan_head[-1])
        for head in (*heads, constant.atom_head, constant.bond_head):
            head.weight.zero_()
        constant.descriptor_head[-1].bias.zero_()
        batch = collate([built[i] for i in range(len(built))])
        output = constant(**batch)
    labels = [batch[name].numpy() for name in ("descriptors", "morgan_bits")]
    labels += [batch[name].numpy() for name in ("atom_types", "bond_types")]
    prediction = type("Prediction", (), {})()
    outputs = (output.descriptors, output.morgan_logits, output.hidden)
    prediction.predictions, prediction.label_ids = [one.numpy() for one in outputs], labels
    found = make_scorer(constant.config)(prediction)
    expected = constant_scores(labels, constant.config, measure(built))
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        # The floor under rare types makes the 119 shares add up to a little more than 1.
        assert found[key] == pytest.approx(value, abs=0.02), key
    assert output.loss.item() == pytest.approx(1, abs=0.2)
    types = batch["atom_types"][batch["atom_types"] != IGNORE_INDEX]
    assert found["atoms_accuracy"] == pytest.approx((types == 5).float().mean().item())


# Lists of molecules.


def write_smiles(path: Path, molecules: list[str]) -> str:
    path.write_text("smiles name\n" + "".join(f"{m} m{i}\n" for i, m in enumerate(molecules)))
    return str(path)


def test_smiles_files_and_tables(tmp_path: Path, datasets_cache: Path):
    rows = open_molecules(write_smiles(tmp_path / "list.smi", ["CCO", "C1CC"]))
    assert rows["molecule"][:] == ["CCO", "C1CC"]
    assert rows["name"][:] == ["m0", "m1"]
    assert rows["row"][:] == [2, 3]  # lines of the file

    path = tmp_path / "table.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["id", "SMILES", "salt"], ["1", "CCO", "Cl"], ["2", "", "Br"]])
    assert open_molecules(str(path))["molecule"][:] == ["CCO", ""]
    assert open_molecules(str(path), "salt")["molecule"][:] == ["Cl", "Br"]
    with pytest.raises(ValueError, match="no column 'smile': did you mean 'SMILES'"):
        open_molecules(str(path), "smile")
    path.write_text("id,structure\n1,CCO\n")
    with pytest.raises(ValueError, match="Say it with --molecule_column; there are 'id', 'struct"):
        open_molecules(str(path))

    folder = tmp_path / "splits"
    folder.mkdir()
    for split, molecule in {"train": "C", "test": "N"}.items():
        (folder / f"{split}.csv").write_text(f"smiles\n{molecule}\n")
    assert open_molecules(str(folder))["molecule"][:] == ["C"]  # the test split stays unseen
    assert open_molecules(str(folder / "test.csv"))["molecule"][:] == ["N"]


@pytest.mark.usefixtures("small_qm9", "datasets_cache")
def test_named_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert len(open_molecules("qm9")) == 19
    nci = open_molecules("nci")
    assert len(nci) == 4999 and len(draw_rows(nci, 30, 0)) == 30
    assert draw_rows(nci, 30, 0)["row"][:] != draw_rows(nci, 30, 1)["row"][:]
    data = tmp_path / "moses" / "dataset" / "data"
    data.mkdir(parents=True)
    (data.parents[1] / "__init__.py").write_text("raise ImportError('never imported')\n")
    with gzip.open(data / "train.csv.gz", "wt") as file:
        file.write("SMILES\nCCO\nCCN\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert open_molecules("moses")["molecule"][:] == ["CCO", "CCN"]
    (data / "train.csv.gz").unlink()
    with pytest.raises(FileNotFoundError, match="pip install --no-deps molsets"):
        open_molecules("moses")
    for name in ("no.smi", "mose"):
        with pytest.raises(FileNotFoundError, match="one of qm9, moses, nci"):
            open_molecules(name)


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
        "max_steps": 80,
        "warmup_steps": 2,
        "learning_rate": 1e-2,
        "eval_steps": 20,
        "save_steps": 40,
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
    assert report["scores"]["descriptors_r2"] > 0.2
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
    model = GraphPretrainingModel.from_pretrained(run / "checkpoint-80")
    graph = MoleculeFeatureExtractor()(MOLECULES, return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(encoder(**graph), model.eval().graph_encoder(**graph))
    # A checkpoint holds the heads too, and its encoder can be had all the same.
    inside = load_graph_encoder(str(run / "checkpoint-80")).state_dict()
    assert all(torch.equal(tensor, inside[name]) for name, tensor in encoder.state_dict().items())


def test_resumed_run_ends_like_an_uninterrupted_one(
    run: Path, molecules: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    resumed = tmp_path / "encoder"
    shutil.copytree(run / "checkpoint-40", resumed / "checkpoint-40")
    with pytest.raises(SystemExit, match="holds checkpoints of an earlier run"):
        main(arguments(molecules, resumed))
    steps = []
    training_step = Trainer.training_step

    def counted_step(self: Trainer, *args: object, **kwargs: object) -> torch.Tensor:
        steps.append(self.state.global_step)
        return training_step(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", counted_step)
    main(arguments(molecules, resumed, resume_from_checkpoint="true"))
    assert steps == list(range(40, 80))
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
