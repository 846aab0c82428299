# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""`MoraGraphEncoder` against the GIN equations written out as loops, and its padding."""

import pytest
import torch
from conftest import MOLECULES

from modeling_mora import MoleculeFeatureExtractor, MoraGraphConfig, MoraGraphEncoder

FORMS = ["prenorm", "moleculestm"]


@pytest.fixture(params=FORMS)
def encoder(request: pytest.FixtureRequest) -> MoraGraphEncoder:
    torch.manual_seed(0)
    config = MoraGraphConfig(form=request.param, hidden_size=32, num_layers=3)
    encoder = MoraGraphEncoder(config).eval()
    with torch.no_grad():
        for name, tensor in encoder.state_dict().items():
            if name.endswith("eps") or "running" in name or "norm" in name:
                tensor.copy_(torch.rand(tensor.shape) + 0.5)
    return encoder


def features(molecules: list[str | None]) -> dict[str, torch.Tensor]:
    return MoleculeFeatureExtractor()(molecules, return_tensors="pt")


def loop_forward(encoder: MoraGraphEncoder, smiles: str) -> torch.Tensor:
    """One unpadded molecule, atom by atom and bond by bond."""
    graph = features([smiles])
    atoms = [
        sum(table.weight[v] for table, v in zip(encoder.atom_embedding.tables, row, strict=True))
        for row in graph["graph_atoms"][0]
    ]
    bonds = [
        (int(i), int(j), row)
        for i, j, row, real in zip(
            *graph["graph_bonds"][0],
            graph["graph_bond_features"][0],
            graph["graph_bond_mask"][0],
            strict=True,
        )
        if real
    ]
    for layer in encoder.layers:
        prenorm = encoder.config.form == "prenorm"
        inputs = [layer.norm(x) for x in atoms] if prenorm else atoms
        tables = layer.conv.bond_embedding.tables
        sums = [(1 + layer.conv.eps) * x for x in inputs]
        for i, j, row in bonds:
            bond = sum(table.weight[v] for table, v in zip(tables, row, strict=True))
            sums[j] = sums[j] + torch.relu(inputs[i] + bond)
        if prenorm:
            atoms = [x + layer.mlp(s) for x, s in zip(atoms, sums, strict=True)]
        else:
            hidden = layer.linear_in(torch.stack(sums))
            hidden = torch.relu(torch.nn.BatchNorm1d.forward(layer.norm_in, hidden))
            out = torch.nn.BatchNorm1d.forward(layer.norm_out, layer.linear_out(hidden))
            atoms = list(out if layer.is_last else torch.relu(out))
    return encoder.norm(torch.stack(atoms))


@torch.no_grad()
@pytest.mark.parametrize("smiles", MOLECULES)
def test_equals_the_equations(encoder, smiles):
    found = encoder(**features([smiles]))[0]
    torch.testing.assert_close(found, loop_forward(encoder, smiles), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_padding_does_not_matter(encoder):
    graph = features([*MOLECULES, None])
    states = encoder(**graph)
    for row, smiles in enumerate(MOLECULES):
        alone = encoder(**features([smiles]))[0]
        torch.testing.assert_close(states[row, : len(alone)], alone, atol=1e-5, rtol=1e-5)
    assert states[~graph["graph_atom_mask"]].abs().max() == 0


def test_batch_norm_statistics_come_from_real_atoms_only():
    torch.manual_seed(0)
    config = MoraGraphConfig(form="moleculestm", hidden_size=16, num_layers=2)
    padded, alone = MoraGraphEncoder(config).train(), MoraGraphEncoder(config).train()
    alone.load_state_dict(padded.state_dict())
    small = features(["CCO"])
    wide = {
        name: torch.nn.functional.pad(
            tensor, {2: (0, 7), 3: (0, 0, 0, 7)}[tensor.dim()] if "bond" not in name else (0, 0)
        )
        for name, tensor in small.items()
    }
    torch.testing.assert_close(padded(**wide)[:, :3], alone(**small), atol=1e-5, rtol=1e-4)
    for name, buffer in padded.named_buffers():
        torch.testing.assert_close(buffer, alone.get_buffer(name))


def test_a_single_atom_can_be_trained_on():
    """It has no variance over atoms."""
    config = MoraGraphConfig(form="moleculestm", hidden_size=16, num_layers=2)
    encoder = MoraGraphEncoder(config).train()
    encoder(**features(["C"])).sum().backward()
    assert all(buffer.isfinite().all() for buffer in encoder.buffers())


def test_bonds_and_stereo_are_seen(encoder):
    """Molecules that differ only in one bond's order or stereo have different states."""
    for one, other in [("CC=C", "CCC"), ("F/C=C/F", "F/C=C\\F"), ("C[C@H](N)O", "C[C@@H](N)O")]:
        with torch.no_grad():
            states = encoder(**features([one, other]))
        assert (states[0] - states[1]).abs().max() > 1e-4


def test_save_and_load(encoder, tmp_path):
    encoder.save_pretrained(tmp_path)
    loaded = MoraGraphEncoder.from_pretrained(tmp_path).eval()
    graph = features(MOLECULES)
    assert torch.equal(loaded(**graph), encoder(**graph))
