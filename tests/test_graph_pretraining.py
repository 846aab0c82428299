# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""What the graph encoder is pretrained on: targets, what is hidden, scores, lists."""

import csv
import gzip
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MOLECULES
from datasets import Dataset
from rdkit import Chem
from rdkit.Chem import Descriptors, rdMolDescriptors
from test_finetune import recipe  # noqa: F401  (a fixture)
from test_qm9 import small_qm9  # noqa: F401  (a fixture)

from modeling_mora import (
    MoleculeFeatureExtractor,
    MoraGraphConfig,
)
from training.data.rejections import Rejections
from training.graph_pretraining import targets
from training.graph_pretraining.collator import (
    HIDDEN_ATOM,
    HIDDEN_BOND,
    IGNORE_INDEX,
    PretrainingCollator,
)
from training.graph_pretraining.model import GraphPretrainingModel, standardise
from training.graph_pretraining.molecules import draw_rows, open_molecules
from training.graph_pretraining.scores import (
    average_precision,
    constant_scores,
    make_scorer,
    median_r2,
)
from training.graph_pretraining.targets import DESCRIPTORS, MORGAN_BITS, build_targets, measure

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
    target = generator.normal(size=(50, 4))
    predicted = target + generator.normal(size=(50, 4))
    of_each = metrics.r2_score(target, predicted, multioutput="raw_values")
    assert median_r2(predicted, target) == pytest.approx(np.median(of_each))
    target[7, 1] = math.nan
    target[:, 2] = 1.0
    known = np.delete(np.arange(50), 7)
    each = [metrics.r2_score(target[:, 0], predicted[:, 0])]
    each += [metrics.r2_score(target[known, 1], predicted[known, 1])]
    each += [metrics.r2_score(target[:, 3], predicted[:, 3])]
    assert median_r2(predicted, target) == pytest.approx(np.median(each))
    assert math.isnan(median_r2(predicted[:1], target[:1]))


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
