# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Which pretrained graph encoder a recipe's `graph_encoder` stands for.

A file is MoleculeSTM's `molecule_model.pth`; a folder or Hub id holds a `MoraGraphEncoder`, such as
`training.pretrain_graph` writes, alone or inside a MoRA model.
"""

from pathlib import Path

from safetensors import SafetensorError

from modeling_mora import MoraGraphConfig, MoraGraphEncoder


def check_graph_encoder(name: str) -> None:
    """Make sure early that the encoder is there.

    Args:
        name: a file, a folder or a Hub id.

    Raises:
        ValueError: names the value and what to do.
    """
    if Path(name).is_file():
        return
    if Path(name).suffix == ".pth":
        raise ValueError(
            f"graph_encoder={name!r} is no file: download MoleculeSTM's molecule_model.pth "
            "(README.md says where) and give its path."
        )
    try:
        config, _ = MoraGraphConfig.get_config_dict(name)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"graph_encoder={name!r} is neither a file of MoleculeSTM, a folder with an encoder, "
            "nor one on the Hub that can be read from here "
            f"({str(error).strip().splitlines()[0]}). Make one with `python -m "
            "training.pretrain_graph --molecules FILE --output_dir DIR`."
        ) from error
    if config.get("model_type") != MoraGraphConfig.model_type and "graph_config" not in config:
        found = (
            f"a model of type {config['model_type']!r}" if "model_type" in config else "no model"
        )
        raise ValueError(
            f"graph_encoder={name!r} holds {found} and no graph encoder: give the folder that "
            "training.pretrain_graph wrote."
        )


def load_graph_encoder(name: str) -> MoraGraphEncoder:
    """Load the encoder with all its weights.

    Args:
        name: a file, a folder or a Hub id.

    Raises:
        OSError: it is not there, or its weights are truncated or corrupt.
        ValueError: tensors are missing or of another shape; they are named.
    """
    if Path(name).is_file():
        return MoraGraphEncoder.from_moleculestm(name)
    try:
        encoder, info = MoraGraphEncoder.from_pretrained(name, output_loading_info=True)
    except SafetensorError as error:
        raise OSError(
            f"The weights of graph_encoder={name!r} are truncated or corrupt ({error}). Download "
            "or copy them again."
        ) from error
    if info["missing_keys"]:
        # They would have been made up.
        raise ValueError(
            f"The weights of graph_encoder={name!r} are incomplete: missing "
            f"{', '.join(sorted(info['missing_keys'])[:4])}."
        )
    return encoder
