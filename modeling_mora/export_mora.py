# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""One molecule's weights as an ordinary PEFT LoRA adapter, for engines that serve LoRA.

python -m modeling_mora.export_mora --model DIR --molecule CCO --out DIR2
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import save_file

from .feature_extraction_mora import MoleculeFeatureExtractor
from .modeling_mora import MoraForCausalLM


@torch.no_grad()
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
        output_dir: folder for `adapter_config.json` and `adapter_model.safetensors`.
        feature_extractor: the checkpoint's own; the default settings when not given.

    Raises:
        ValueError: the model adapts whole MLPs (`"mlp"`), which LoRA cannot express.
        MoleculeError: the molecule cannot become a graph.
    """
    modules = dict(model.language_model.named_modules())
    for target in model.tuner.targets:
        if not hasattr(modules[target.name], "weight"):
            raise ValueError(
                f"{target.name} is adapted as a whole, from its input to its output. LoRA knows "
                "only linear layers: train with linear target_modules to export adapters."
            )
    extract = feature_extractor or MoleculeFeatureExtractor()
    graph = extract(molecule, return_tensors="pt").to(model.device)
    weights = model.encode_molecules(**graph)

    tensors = {}
    for target, lora_a, lora_b in model.tuner.lora_matrices(weights):
        prefix = f"base_model.model.{target.name}"
        tensors[f"{prefix}.lora_A.weight"] = lora_a.T.contiguous().cpu()
        tensors[f"{prefix}.lora_B.weight"] = lora_b.T.contiguous().cpu()

    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=model.config.rank,
        lora_alpha=model.config.alpha,
        target_modules=[target.name for target in model.tuner.targets],
        base_model_name_or_path=model.config.base_model_name_or_path,
        revision=model.config.base_revision,
        inference_mode=True,
    )
    config.save_pretrained(str(output_dir))
    save_file(tensors, Path(output_dir) / "adapter_model.safetensors", metadata={"format": "pt"})


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code, 2 when the molecule or the model does not do."""
    parser = argparse.ArgumentParser(prog="python -m modeling_mora.export_mora")
    parser.add_argument("--model", required=True, help="MoRA checkpoint: a folder or a Hub id")
    parser.add_argument("--molecule", required=True, help="SMILES, SELFIES or InChI")
    parser.add_argument("--out", required=True, type=Path, help="folder for the LoRA adapter")
    args = parser.parse_args(arguments)
    try:
        extract = MoleculeFeatureExtractor.from_pretrained(args.model)
        extract.featurize(args.molecule)
        export_lora(MoraForCausalLM.from_pretrained(args.model), args.molecule, args.out, extract)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"Wrote the LoRA adapter of {args.molecule} to {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
