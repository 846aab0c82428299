# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Reading the GIN checkpoint of MoleculeSTM (Liu et al., Nature Machine Intelligence 2023).

The names are those of https://github.com/chao1224/MoleculeSTM: a `GNN_graphpred`, which holds the
GIN as `molecule_node_model`, or the bare GIN as GraphMVP saves it, from which MoleculeSTM starts.
"""

import os
import re

import torch

from .configuration_mora import MoraGraphConfig

WRAPPER = "molecule_node_model."
HEAD = ("graph_pred_linear.weight", "graph_pred_linear.bias")
"""The prediction head over whole graphs: the only tensors that atom states do not need."""

FIRST_TABLE = "atom_encoder.atom_embedding_list.0.weight"
CHIRALITY_TABLE = "atom_encoder.atom_embedding_list.1.weight"

# MoleculeSTM's names, without the wrapper's, and ours; {i} is the layer.
LAYER_NAMES = {
    "gnns.{i}.eps": "layers.{i}.conv.eps",
    "gnns.{i}.mlp.0.": "layers.{i}.linear_in.",
    "gnns.{i}.mlp.1.": "layers.{i}.norm_in.",
    "gnns.{i}.mlp.3.": "layers.{i}.linear_out.",
    "gnns.{i}.bond_encoder.bond_embedding_list.": "layers.{i}.conv.bond_embedding.tables.",
    "batch_norms.{i}.": "layers.{i}.norm_out.",
}
ATOM_TABLES = ("atom_encoder.atom_embedding_list.", "atom_embedding.tables.")


def read_moleculestm(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """Read the tensors of MoleculeSTM's GIN, without running any code that the file may hold.

    Args:
        path: a `.pth` file with the state dict of MoleculeSTM's `GNN_graphpred` or `GNN`.

    Returns:
        The GIN's tensors under the names of `GNN`; the prediction head is left out.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the file is truncated, corrupt or holds anything but tensors.
        ValueError: tensors beside the GIN and the head; they are named.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"There is no MoleculeSTM checkpoint {os.fspath(path)!r}: give the path of its "
            "molecule_model.pth."
        )
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # A damaged file fails wherever the unpickler happens to stumble.
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise OSError(
            f"{os.fspath(path)!r} cannot be read as a checkpoint of tensors ({reason}). Download "
            "or copy it again."
        ) from error
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and torch.is_tensor(tensor) for name, tensor in tensors.items()
    ):
        raise OSError(
            f"{os.fspath(path)!r} holds no state dict: give the molecule_model.pth that "
            "MoleculeSTM saves."
        )
    if any(name.startswith(WRAPPER) for name in tensors):
        tensors = {name: tensor for name, tensor in tensors.items() if name not in HEAD}
        strange = [name for name in tensors if not name.startswith(WRAPPER)]
        if strange:
            raise ValueError(
                f"{os.fspath(path)!r} is not MoleculeSTM's GIN: unexpected {_listed(strange)}."
            )
    return {name.removeprefix(WRAPPER): tensor for name, tensor in tensors.items()}


def infer_config(tensors: dict[str, torch.Tensor]) -> MoraGraphConfig:
    """The encoder's configuration, with the width and the number of layers of the checkpoint.

    Raises:
        ValueError: there is no table of atomic numbers or no layer to tell them from.
    """
    layers = {match[1] for name in tensors if (match := re.match(r"gnns\.(\d+)\.", name))}
    if FIRST_TABLE not in tensors or tensors[FIRST_TABLE].dim() != 2 or not layers:
        raise ValueError(
            f"The checkpoint is not MoleculeSTM's GIN: it needs a matrix {FIRST_TABLE} and layers "
            f"gnns.0, gnns.1, …, but holds {_listed(sorted(tensors)) or 'nothing'}."
        )
    return MoraGraphConfig(
        form="moleculestm", hidden_size=tensors[FIRST_TABLE].shape[1], num_layers=len(layers)
    )


def convert_moleculestm(
    tensors: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Rename the tensors of MoleculeSTM's GIN to those of `MoraGraphEncoder`.

    OGB up to 1.3.5, with which MoleculeSTM was trained, had four values of chirality and refused
    all others; 1.3.6 added a fifth for these. A table of four rows gets a fifth, equal to that of
    "unspecified": the network then reads an atom of, say, octahedral chirality as one whose
    chirality was not given, and for all other atoms nothing changes. Every other table must have
    the size of our vocabulary, so no index can fall outside of it.

    Args:
        tensors: the tensors of [`read_moleculestm`].
        expected: state dict of an encoder with the configuration of [`infer_config`].

    Returns:
        A state dict for that encoder.

    Raises:
        ValueError: tensors are missing, unexpected or of another shape; they are named as in the
            checkpoint.
    """
    names = {_theirs(name): name for name in expected}
    missing = sorted(set(names) - set(tensors))
    unexpected = sorted(set(tensors) - set(names))
    if missing or unexpected:
        problems = [f"missing {_listed(missing)}"] if missing else []
        problems += [f"unexpected {_listed(unexpected)}"] if unexpected else []
        raise ValueError(f"The checkpoint is not MoleculeSTM's GIN: {'; '.join(problems)}.")
    chirality = tensors[CHIRALITY_TABLE]
    if chirality.shape[:1] == (4,):
        tensors = tensors | {CHIRALITY_TABLE: torch.cat([chirality, chirality[:1]])}
    wrong = [
        f"{theirs} has shape {list(tensors[theirs].shape)}, expected {list(expected[ours].shape)}"
        for theirs, ours in names.items()
        if tensors[theirs].shape != expected[ours].shape
    ]
    if wrong:
        raise ValueError(f"The checkpoint does not fit MoleculeSTM's GIN: {_listed(wrong)}.")
    return {ours: tensors[theirs] for theirs, ours in names.items()}


def _theirs(name: str) -> str:
    """MoleculeSTM's name of one of our tensors."""
    layer = re.match(r"layers\.(\d+)\.", name)
    if layer is None:
        theirs, ours = ATOM_TABLES
        return name.replace(ours, theirs)
    for theirs, ours in LAYER_NAMES.items():
        theirs, ours = theirs.format(i=layer[1]), ours.format(i=layer[1])
        if name.startswith(ours):
            return name.replace(ours, theirs)
    raise KeyError(f"{name} has no counterpart in MoleculeSTM.")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"{', '.join(names[:8])}{more}"
