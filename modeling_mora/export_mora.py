# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Molecules' weights as ordinary PEFT LoRA adapters, for engines that serve LoRA.

python -m modeling_mora.export_mora --model DIR --molecule CCO --out DIR2
python -m modeling_mora.export_mora --model DIR --molecules FILE.smi --out DIR2
"""

import argparse
import csv
import hashlib
import io
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from safetensors.torch import save_file
from tqdm.auto import tqdm
from transformers.pytorch_utils import Conv1D

from .base_models_mora import resolve_base
from .checkpoint_mora import drop_base_keys
from .feature_extraction_mora import MoleculeFeatureExtractor
from .modeling_mora import MoraForCausalLM
from .molecule_list_mora import ListedMolecule, list_molecules, read_molecules
from .tuner_mora import adapted_module

# What `export.json` holds tells whether a folder was begun with the same molecules and model.
STATE_FILE = "export.json"
TABLE_FILE = "adapters.csv"
UNFINISHED = ".unfinished"


def export_lora(
    model: MoraForCausalLM,
    molecule: Any,
    output_dir: str | Path,
    feature_extractor: MoleculeFeatureExtractor | None = None,
) -> None:
    """Write the weights of one molecule as a PEFT LoRA adapter of the base model.

    With `A C_i` as LoRA's A, the adapter gives the logits that `model` gives for this molecule;
    `PeftModel.from_pretrained(base, output_dir)` loads it.

    Args:
        model: a MoRA model.
        molecule: SMILES, SELFIES, InChI or RDKit `Mol`.
        output_dir: new or empty folder for `adapter_config.json` and
            `adapter_model.safetensors`.
        feature_extractor: the checkpoint's own; the default settings when not given.

    Raises:
        ValueError: the model adapts whole MLPs (`"mlp"`), which LoRA cannot express.
        MoleculeError: the molecule cannot become a graph.
        FileExistsError: `output_dir` holds something.
    """
    check_empty(Path(output_dir))
    config = lora_config(model)
    weights = model._weights_of_molecules([molecule], feature_extractor)
    _write_adapter(model, weights[0], config, Path(output_dir))


def export_loras(
    model: MoraForCausalLM,
    molecules: Sequence[Any],
    output_dir: str | Path,
    feature_extractor: MoleculeFeatureExtractor | None = None,
    batch_size: int = 16,
) -> int:
    """Write one PEFT LoRA adapter for each molecule, and a table of them.

    `output_dir` gets the folders `00001`, `00002`, … in the order of the molecules and, when all
    are there, `adapters.csv` (folder, line, name, molecule, canonical SMILES). A call that was
    interrupted is simply repeated: it keeps the adapters that are finished.

    Args:
        model: a MoRA model.
        molecules: what [`export_lora`] takes, or what `read_molecules` returns.
        output_dir: a new or empty folder, or one that the same call has begun.
        feature_extractor: the checkpoint's own; the default settings when not given.
        batch_size: number of molecules that are encoded together.

    Returns:
        How many adapters were written; the others were there.

    Raises:
        ValueError: the model adapts whole MLPs (`"mlp"`), which LoRA cannot express.
        MoleculeError: molecules cannot become graphs; all of them are listed.
        FileExistsError: `output_dir` holds something else.
    """
    if isinstance(molecules, str):
        raise ValueError(f"{molecules!r} is one molecule: give a list, or use export_lora.")
    config = lora_config(model)
    extractor = feature_extractor or MoleculeFeatureExtractor()
    molecules = list(molecules)
    if not all(isinstance(molecule, ListedMolecule) for molecule in molecules):
        molecules = list_molecules(molecules, extractor)
    output_dir = Path(output_dir)
    state = {"molecules": _molecules_digest(molecules), "model": _model_digest(model)}
    check_output_dir(output_dir, state)
    output_dir.mkdir(parents=True, exist_ok=True)
    _write_text(output_dir / STATE_FILE, json.dumps(state, indent=2) + "\n")

    folders = [output_dir / name for name in _folder_names(molecules)]
    missing = {folder for folder in folders if not folder.is_dir()}
    with tqdm(total=len(folders), initial=len(folders) - len(missing), unit="adapter") as progress:
        # The batches do not depend on what is finished: repeated, a call gives the same bits.
        for start in range(0, len(folders), batch_size):
            batch = slice(start, start + batch_size)
            if missing.isdisjoint(folders[batch]):
                continue
            entries = [entry.molecule for entry in molecules[batch]]
            weights = model._weights_of_molecules(entries, extractor)
            for folder, row in zip(folders[batch], weights, strict=True):
                if folder not in missing:
                    continue
                # The adapter appears in one step. What a killed run has left may hold temporary
                # files of safetensors.
                unfinished = folder.with_name(folder.name + UNFINISHED)
                shutil.rmtree(unfinished, ignore_errors=True)
                _write_adapter(model, row, config, unfinished)
                os.replace(unfinished, folder)
                progress.update()
    _write_text(output_dir / TABLE_FILE, _table(molecules))
    return len(missing)


def lora_config(model: MoraForCausalLM) -> LoraConfig:
    """The `adapter_config.json` of all adapters that are exported from `model`.

    Raises:
        ValueError: the model adapts whole MLPs (`"mlp"`), which LoRA cannot express.
    """
    adapted = [adapted_module(model.language_model, target) for target in model.tuner.targets]
    for target in model.tuner.targets:
        if not target.is_linear:
            raise ValueError(
                f"{target.name} is adapted as a whole, from its input to its output. LoRA knows "
                "only linear layers: train with linear target_modules to export adapters."
            )
    target_modules, layers = _peft_targets(model)
    alpha = model.config.alpha
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=model.config.rank,
        # Engines declare it as an integer.
        lora_alpha=int(alpha) if alpha == int(alpha) else alpha,
        target_modules=target_modules,
        layers_to_transform=layers,
        # GPT-2's Conv1D keeps its weight as [d_in, d_out].
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in adapted),
        base_model_name_or_path=resolve_base(model.config.base_model_name_or_path),
        revision=model.config.base_revision,
        inference_mode=True,
    )
    # PEFT makes it a set, whose order in the file would differ from run to run.
    config.target_modules = target_modules
    return config


def _peft_targets(model: MoraForCausalLM) -> tuple[list[str], list[int] | None]:
    """`target_modules` and `layers_to_transform` with which PEFT adapts exactly our modules.

    Last names such as `q_proj` where they say it all: SGLang's earlier versions know no others.
    It and vLLM take the layers from the tensors' names and ignore `layers_to_transform`.
    """
    targets = model.tuner.targets
    names = {target.name for target in targets}
    layers = sorted({target.layer for target in targets})
    last_names = sorted({target.name.rsplit(".", 1)[-1] for target in targets})
    kinds = sorted({target.kind for target in targets})
    for target_modules in (last_names, kinds):
        for layers_to_transform in (None, layers):
            config = LoraConfig(
                target_modules=target_modules, layers_to_transform=layers_to_transform
            )
            matched = {
                name
                for name, _ in model.language_model.named_modules()
                if check_target_module_exists(config, name)
            }
            if matched == names:
                return target_modules, layers_to_transform
    return sorted(names), None


def _write_adapter(
    model: MoraForCausalLM, weights: torch.Tensor, config: LoraConfig, folder: Path
) -> None:
    """Write one molecule's weights [P] as an adapter, in float32."""
    tensors = {}
    for target, lora_a, lora_b in model.tuner.lora_matrices(weights):
        prefix = f"base_model.model.{target.name}"
        tensors[f"{prefix}.lora_A.weight"] = lora_a.T.contiguous().float().cpu()
        tensors[f"{prefix}.lora_B.weight"] = lora_b.T.contiguous().float().cpu()
    config.save_pretrained(str(folder))
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def check_empty(output_dir: Path) -> None:
    """Raise a FileExistsError unless the folder is new or empty."""
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise FileExistsError(f"{output_dir} holds something: name a folder that is new or empty.")


def check_output_dir(output_dir: Path, state: dict[str, str]) -> None:
    """Raise unless `output_dir` is new, empty, or begun with the same `state`.

    Args:
        output_dir: the folder for many adapters.
        state: digests that its `export.json` must agree with, as far as they are given.

    Raises:
        FileExistsError: it holds something else.
    """
    if not output_dir.exists():
        return
    if not output_dir.is_dir():
        raise FileExistsError(f"{output_dir} is a file: name a folder that is new or empty.")
    # What a run leaves that was killed while it wrote its very first file.
    entries = {entry.name for entry in output_dir.iterdir()} - {STATE_FILE + UNFINISHED}
    if not entries:
        return
    if STATE_FILE not in entries:
        raise FileExistsError(
            f"{output_dir} holds other files ({', '.join(sorted(entries)[:3])}): name a folder "
            "that is new or empty."
        )
    found = json.loads((output_dir / STATE_FILE).read_text(encoding="utf-8"))
    other = {"molecules": "for other molecules", "model": "with another model"}
    for what, digest in state.items():
        if found.get(what) != digest:
            raise FileExistsError(
                f"{output_dir} was begun {other[what]}: name another folder, or remove this one."
            )


def _molecules_digest(molecules: Sequence[ListedMolecule]) -> str:
    return hashlib.sha256(_table(molecules).encode()).hexdigest()


def _model_digest(model: MoraForCausalLM) -> str:
    """Hash of all that an adapter depends on: the settings and the adapter's tensors."""
    settings = model.config.to_dict()
    # The base is named and has its fingerprint; where the checkpoint lies does not matter.
    for key in ("transformers_version", "_name_or_path", "text_config", "dtype"):
        settings.pop(key, None)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in sorted(drop_base_keys(model.state_dict()).items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _folder_names(molecules: Sequence[ListedMolecule]) -> list[str]:
    # Numbers and not names: a molecule's name may hold slashes or occur twice.
    return [f"{number:05d}" for number in range(1, len(molecules) + 1)]


def _table(molecules: Sequence[ListedMolecule]) -> str:
    """The text of `adapters.csv`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["folder", "line", "name", "molecule", "smiles"])
    for folder, entry in zip(_folder_names(molecules), molecules, strict=True):
        molecule = entry.molecule if isinstance(entry.molecule, str) else entry.smiles
        writer.writerow([folder, entry.line, entry.name, molecule, entry.smiles])
    return text.getvalue()


def _write_text(path: Path, text: str) -> None:
    unfinished = path.with_name(path.name + UNFINISHED)
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code, 2 when the molecules or the model do not do."""
    parser = argparse.ArgumentParser(prog="python -m modeling_mora.export_mora")
    parser.add_argument("--model", required=True, help="MoRA checkpoint: a folder or a Hub id")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--molecule", help="SMILES, SELFIES or InChI")
    source.add_argument("--molecules", type=Path, help="file: a molecule a line, then its name")
    parser.add_argument("--out", required=True, type=Path, help="folder for what is written")
    args = parser.parse_args(arguments)
    try:
        extractor = MoleculeFeatureExtractor.from_pretrained(args.model)
        if args.molecules is None:
            extractor.featurize(args.molecule)
            check_empty(args.out)
            model = MoraForCausalLM.from_pretrained(args.model)
            export_lora(model, args.molecule, args.out, extractor)
            print(f"Wrote the LoRA adapter of {args.molecule} to {args.out}")
        else:
            molecules = read_molecules(args.molecules, extractor)
            check_output_dir(args.out, {"molecules": _molecules_digest(molecules)})
            model = MoraForCausalLM.from_pretrained(args.model)
            written = export_loras(model, molecules, args.out, extractor)
            there = len(molecules) - written
            print(
                f"Wrote {written} LoRA adapters to {args.out}"
                + (f" ({there} were there already)" if there else "")
            )
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
