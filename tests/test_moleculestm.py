# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""MoleculeSTM's GIN checkpoint: the same atom states as PyTorch Geometric, and clear errors."""

from pathlib import Path

import pytest
import torch
from conftest import MOLECULES
from rdkit import Chem, RDConfig
from torch import nn

from modeling_mora import MoleculeFeatureExtractor, MoraForCausalLM, MoraGraphEncoder

WIDTH, LAYERS = 48, 5
PREFIX = "molecule_node_model."
HEAD = "graph_pred_linear.weight"
CHIRALITY = PREFIX + "atom_encoder.atom_embedding_list.1.weight"
BOND_TYPE = PREFIX + "gnns.0.bond_encoder.bond_embedding_list.0.weight"


def make_reference() -> nn.Module:
    """MoleculeSTM's GIN of PyTorch Geometric's convolution and OGB's embeddings, random."""
    geometric = pytest.importorskip("torch_geometric.nn")
    ogb = pytest.importorskip("ogb.graphproppred.mol_encoder")

    class Reference(nn.Module):
        def __init__(self):
            super().__init__()
            self.atom_encoder = ogb.AtomEncoder(WIDTH)
            self.bond_encoders = nn.ModuleList(ogb.BondEncoder(WIDTH) for _ in range(LAYERS))
            self.gnns = nn.ModuleList(
                geometric.GINEConv(
                    nn.Sequential(
                        nn.Linear(WIDTH, 2 * WIDTH),
                        nn.BatchNorm1d(2 * WIDTH),
                        nn.ReLU(),
                        nn.Linear(2 * WIDTH, WIDTH),
                    ),
                    train_eps=True,
                )
                for _ in range(LAYERS)
            )
            self.batch_norms = nn.ModuleList(nn.BatchNorm1d(WIDTH) for _ in range(LAYERS))

        def forward(self, graph: dict) -> torch.Tensor:
            """OGB's graph of one molecule to [N, WIDTH]."""
            atoms = self.atom_encoder(torch.from_numpy(graph["node_feat"]))
            edges = torch.from_numpy(graph["edge_index"])
            for layer in range(LAYERS):
                bonds = self.bond_encoders[layer](torch.from_numpy(graph["edge_feat"]))
                atoms = self.batch_norms[layer](self.gnns[layer](atoms, edges, bonds))
                if layer < LAYERS - 1:
                    atoms = torch.relu(atoms)
            return atoms

    torch.manual_seed(0)
    reference = Reference().eval()
    for module in reference.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif isinstance(module, geometric.GINEConv):
            nn.init.normal_(module.eps, std=0.3)
    return reference


@pytest.fixture(scope="module")
def reference() -> nn.Module:
    return make_reference()


@pytest.fixture(scope="module")
def checkpoint(reference: nn.Module) -> dict[str, torch.Tensor]:
    """The reference's tensors under the names of MoleculeSTM's `GNN_graphpred`."""
    tensors = {HEAD: torch.randn(1, WIDTH), "graph_pred_linear.bias": torch.randn(1)}
    for name, tensor in reference.state_dict().items():
        if name.startswith("bond_encoders."):
            _, layer, rest = name.split(".", 2)
            name = f"gnns.{layer}.bond_encoder.{rest}"
        tensors[PREFIX + name.replace(".nn.", ".mlp.")] = tensor.clone()
    return tensors


@pytest.fixture
def save(tmp_path: Path):
    def save(content: object) -> Path:
        torch.save(content, tmp_path / "molecule_model.pth")
        return tmp_path / "molecule_model.pth"

    return save


def nci_molecules(count: int) -> list[str]:
    """Real molecules of 1 to 50 heavy atoms, from the NCI file that comes with RDKit."""
    lines = (Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi").read_text().splitlines()
    smiles = [line.split()[0] for line in lines[:: len(lines) // (count + 10)]]
    return [s for s in smiles if Chem.MolFromSmiles(s) is not None][:count]


def encode(encoder: MoraGraphEncoder, molecules: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    graph = MoleculeFeatureExtractor()(molecules, return_tensors="pt")
    with torch.no_grad():
        return encoder(**graph), graph["graph_atom_mask"]


def test_same_atom_states_as_pytorch_geometric(reference, checkpoint, save):
    """200 real molecules in one padded batch, against the reference one by one."""
    smiles2graph = pytest.importorskip("ogb.utils.mol").smiles2graph
    molecules = [*nci_molecules(195), "C", "[Na+].[Cl-]", "F/C=C\\F", "C[C@H](N)O", "CCO.CC(=O)O"]
    assert len(molecules) == 200
    encoder = MoraGraphEncoder.from_moleculestm(save(checkpoint))
    assert not encoder.training
    assert (encoder.config.form, encoder.config.hidden_size) == ("moleculestm", WIDTH)
    assert len(encoder.layers) == LAYERS
    states, mask = encode(encoder, molecules)
    for row, smiles in enumerate(molecules):
        with torch.no_grad():
            expected = reference(smiles2graph(Chem.CanonSmiles(smiles)))
        assert mask[row].sum() == len(expected)
        torch.testing.assert_close(
            states[row, : len(expected)], expected, atol=1e-5, rtol=1e-5, msg=smiles
        )


def test_bare_gin_and_missing_head_are_the_same_encoder(checkpoint, save):
    """GraphMVP's files, from which MoleculeSTM starts, lack the wrapper and the head."""
    expected, _ = encode(MoraGraphEncoder.from_moleculestm(save(checkpoint)), MOLECULES)
    gin = {name: tensor for name, tensor in checkpoint.items() if name.startswith(PREFIX)}
    bare = {name.removeprefix(PREFIX): tensor for name, tensor in gin.items()}
    for tensors in (gin, bare):
        found, _ = encode(MoraGraphEncoder.from_moleculestm(save(tensors)), MOLECULES)
        assert torch.equal(found, expected)


def test_chirality_table_of_older_ogb(checkpoint, save):
    """Up to OGB 1.3.5 there were four values; what was unknown then reads as unspecified."""
    older = checkpoint | {CHIRALITY: checkpoint[CHIRALITY][:4]}
    encoder = MoraGraphEncoder.from_moleculestm(save(older))
    expected, _ = encode(MoraGraphEncoder.from_moleculestm(save(checkpoint)), MOLECULES)
    assert torch.equal(encode(encoder, MOLECULES)[0], expected)
    graph = MoleculeFeatureExtractor()(["C[Pt@SP1](F)(Cl)Br"], return_tensors="pt")
    assert graph["graph_atoms"][0, :, 1].max() == 4
    plain = graph["graph_atoms"].clone()
    plain[..., 1] = 0
    assert torch.equal(encoder(**graph), encoder(**(dict(graph) | {"graph_atoms": plain})))


def renamed(tensors: dict, old: str, new: str) -> dict:
    return {name.replace(old, new): tensor for name, tensor in tensors.items()}


def without(tensors: dict, *names: str) -> dict:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: without(t, PREFIX + "gnns.2.eps"), r"missing gnns\.2\.eps\.$"),
        (
            lambda t: without(t, PREFIX + "batch_norms.4.running_mean"),
            r"missing batch_norms\.4\.running_mean\.$",
        ),
        (
            lambda t: t | {PREFIX + "gnns.0.mlp.4.weight": torch.zeros(2)},
            r"unexpected gnns\.0\.mlp\.4\.weight\.$",
        ),
        (lambda t: t | {"projector.weight": torch.zeros(2)}, r"unexpected projector\.weight\.$"),
        (
            lambda t: renamed(t, "gnns.1.mlp.3", "gnns.1.linear"),
            r"missing gnns\.1\.mlp\.3\.bias, .*; unexpected gnns\.1\.linear\.bias, ",
        ),
        (lambda t: renamed(t, "gnns.1.", "gnns.7."), r"missing gnns\.1\..*; unexpected gnns\.7\."),
        (
            lambda t: t | {PREFIX + "gnns.0.mlp.0.weight": torch.zeros(2 * WIDTH, 7)},
            rf"gnns\.0\.mlp\.0\.weight has shape \[{2 * WIDTH}, 7\], expected \[{2 * WIDTH}, ",
        ),
        (
            lambda t: t | {CHIRALITY: torch.zeros(3, WIDTH)},
            rf"list\.1\.weight has shape \[3, {WIDTH}\], expected \[5, {WIDTH}\]",
        ),
        (
            lambda t: t | {BOND_TYPE: torch.ones(4)},
            r"bond_embedding_list\.0\.weight has shape \[4\], expected \[5, ",
        ),
        (lambda t: {"weight": torch.zeros(2)}, "needs a matrix .* but holds weight"),
        (lambda t: {}, "needs a matrix .* but holds nothing"),
    ],
)
def test_unmatched_tensors_are_named(checkpoint, save, damage, message):
    with pytest.raises(ValueError, match=message):
        MoraGraphEncoder.from_moleculestm(save(damage(dict(checkpoint))))


class Code:
    """Unpickling it would call a function."""

    def __reduce__(self):
        return print, ("this must never run",)


def test_unreadable_files(checkpoint, save, tmp_path, capfd):
    with pytest.raises(FileNotFoundError, match=r"no MoleculeSTM checkpoint .*nothing\.pth"):
        MoraGraphEncoder.from_moleculestm(tmp_path / "nothing.pth")
    whole = save(checkpoint).read_bytes()
    torch.save(checkpoint, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    old = (tmp_path / "old.pth").read_bytes()
    for content in (b"", b"no checkpoint", whole[: len(whole) // 2], old[: len(old) // 2], old[:9]):
        (tmp_path / "broken.pth").write_bytes(content)
        with pytest.raises(OSError, match="cannot be read as a checkpoint of tensors"):
            MoraGraphEncoder.from_moleculestm(tmp_path / "broken.pth")
    with pytest.raises(OSError, match="cannot be read as a checkpoint of tensors"):
        MoraGraphEncoder.from_moleculestm(save({"weight": Code()}))
    assert "never" not in capfd.readouterr().out
    for content in ([torch.zeros(2)], {"model": checkpoint}, {0: torch.zeros(2)}):
        with pytest.raises(OSError, match="holds no state dict"):
            MoraGraphEncoder.from_moleculestm(save(content))


def test_model_keeps_the_encoder(checkpoint, save, tiny_base, tmp_path):
    """Built with it, frozen in training, saved and loaded: the same tensors, statistics too."""
    encoder = MoraGraphEncoder.from_moleculestm(save(checkpoint))
    model = MoraForCausalLM.from_base(
        tiny_base, graph_encoder=encoder, freeze_graph_encoder=True, rank=4
    )
    assert not any(p.requires_grad for p in model.graph_encoder.parameters())
    graph = MoleculeFeatureExtractor()(MOLECULES, return_tensors="pt")
    model.train().encode_molecules(**graph).sum().backward()
    model.save_pretrained(tmp_path / "model")
    loaded = MoraForCausalLM.from_pretrained(tmp_path / "model")
    assert loaded.config.graph_config.form == "moleculestm"
    expected = encoder.state_dict()
    for found in (model.graph_encoder.state_dict(), loaded.graph_encoder.state_dict()):
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not loaded.graph_encoder.training
    with pytest.raises(ValueError, match="give only one of them"):
        MoraForCausalLM.from_base(tiny_base, graph_encoder=encoder, graph_config={})
