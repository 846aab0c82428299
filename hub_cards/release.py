# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""From a training's output to a folder that is ready for the Hub: small, with a card.

    python -m hub_cards.release --model RUN --output_dir checkpoints/NAME --data "What it learned"
    python -m eval.benchmark --model checkpoints/NAME --output_dir runs/NAME --controls …
    python -m hub_cards.release … --results runs/NAME/results.json [runs/OTHER/results.json]

The weights are saved in bfloat16, half as large, so the card's scores are those of the released
folder, not of the run. Made twice, the folder is the same.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelCardData

from modeling_mora import MoraForCausalLM, MoraProcessor
from modeling_mora.base_models_mora import WHEEL_BASES

TEMPLATE = Path(__file__).with_name("model_card.md")
# By task, the score of the card's table, and what it is called.
SCORES = {
    "property_prediction": ("mae", "MAE"),
    "property_classification": ("roc_auc", "ROC-AUC"),
    "forward_reaction_prediction": ("exact_match", "exact match"),
    "retrosynthesis": ("exact_match", "exact match"),
    "reagent_prediction": ("exact_match", "exact match"),
    "molecule_captioning": ("bleu4", "BLEU-4"),
    "molecule_qa": ("bleu4", "BLEU-4"),
}
# What the card's question is about: o-cresol, which is small enough for QM9, or reactants.
EXAMPLE = "Cc1ccccc1O"
REACTANTS = {
    "forward_reaction_prediction": "CCO.CC(=O)O",
    "reagent_prediction": "CCO.CC(=O)O>>CCOC(C)=O",
}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m hub_cards.release")
    parser.add_argument("--model", required=True, type=Path, help="output of training.finetune")
    parser.add_argument("--output_dir", required=True, type=Path, help="the folder to be released")
    parser.add_argument("--data", required=True, help="what it was trained on, in a sentence")
    parser.add_argument("--base", help="what the base is called in the folder's configuration")
    parser.add_argument("--license", default="apache-2.0", help="of the weights")
    parser.add_argument(
        "--results",
        nargs="+",
        default=[],
        type=Path,
        help="results.json of eval.benchmark for the released folder, each a table of the card",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the folder; returns the exit code, 2 when something is missing."""
    args = parse_arguments(arguments)
    try:
        results = [read_results(path, args.output_dir) for path in args.results]
        model = MoraForCausalLM.from_pretrained(args.model)
        processor = MoraProcessor.from_pretrained(args.model)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.base is not None:
        model.config.base_model_name_or_path = args.base
    args.output_dir.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(args.output_dir, state_dict=in_bfloat16(model.whole_state_dict()))
    processor.save_pretrained(args.output_dir)
    copy_data_settings(args.model, args.output_dir)
    size_mb = (args.output_dir / "model.safetensors").stat().st_size / 1e6
    facts = {"size_mb": size_mb, "data": args.data, **example_question(processor)}
    card = make_card(model, str(args.output_dir), args.license, facts, results)
    card.save(args.output_dir / "README.md")
    print(f"Wrote {args.output_dir}, model.safetensors has {size_mb:.1f} MB")
    return 0


def read_results(path: Path, output_dir: Path) -> dict[str, Any]:
    """What eval.benchmark has measured.

    Raises:
        OSError: there is no such file.
        ValueError: it is about another model than the released folder.
    """
    results = json.loads(path.read_text(encoding="utf-8"))
    if Path(results["model"]) != output_dir:
        raise ValueError(
            f"{path} has the scores of {results['model']}, not of {output_dir}: run eval.benchmark "
            "on the released folder, whose weights are rounded."
        )
    return results


def in_bfloat16(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights in half the size; whole numbers stay as they are."""
    return {
        name: tensor.bfloat16() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }


def copy_data_settings(model: Path, output_dir: Path) -> None:
    """Copy `data.json`, unless it names a folder of prepared data, which nobody else has."""
    content = (model / "data.json").read_text(encoding="utf-8")
    if "prepared" not in json.loads(content):
        (output_dir / "data.json").write_text(content, encoding="utf-8")


def example_question(processor: MoraProcessor) -> dict[str, str]:
    """A question of the first task that the processor knows, its molecule, and any property."""
    name = next(iter(processor.tasks), "molecule_captioning")
    task = processor.task(name)
    molecule = task.read(REACTANTS.get(name, EXAMPLE))
    options = {}
    if name == "property_prediction":
        options = {"property": next(iter(task.properties))}
    elif name == "property_classification":
        options = {"label": next(iter(task.labels))}
    elif name == "molecule_qa":
        options = {"question": "What is this molecule used for?"}
    example = {"question": task.question(molecule, **options), "molecule": task.graph(molecule)}
    if "property_prediction" in processor.tasks:
        example["property"] = next(iter(processor.task("property_prediction").properties))
    return example


def make_card(
    model: MoraForCausalLM,
    name: str,
    license: str,
    facts: dict[str, Any],
    results: Sequence[dict[str, Any]],
) -> ModelCard:
    """The card of a released folder.

    Args:
        model: the model.
        name: the folder.
        license: of the weights, by its name on the Hub.
        facts: `size_mb`, `data`, and of the template what `example_question` returns.
        results: of `read_results`, a table each.
    """
    base = WHEEL_BASES.get(model.config.base_model_name_or_path)
    card_data = ModelCardData(
        license=license,
        base_model=model.config.base_model_name_or_path if base is None else base.hub_id,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["mora", "chemistry", "molecules", "custom_code"],
    )
    tables = [
        {
            "rows": score_rows(result["scores"]),
            "policy": result["policy"],
            "numbers": result["decoding"].get("numbers", "greedy"),
            "command": result["command"],
        }
        for result in results
    ]
    return ModelCard.from_template(
        card_data,
        template_path=str(TEMPLATE),
        model_id=name,
        config=model.config,
        **facts,
        wheels=None if base is None else " ".join(base.wheels),
        tables=tables,
    )


def score_rows(entries: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """A line of the card's table for each task, property and control, as text."""
    rows = []
    for entry in entries:
        name, title = SCORES[entry["task"]]
        metric = entry["metrics"][name]
        asked = entry["task"].replace("_", " ") + f", {entry['source']}"
        if entry["property"]:
            asked += f", {entry['property']}"
        if entry["control"]:
            asked += f", *{entry['control'].replace('_', ' ')}*"
        value, low, high = (metric.get(key) for key in ("value", "low", "high"))
        rows.append(
            {
                "name": asked,
                "metric": f"{title}, {entry['unit']}" if entry["unit"] else title,
                "value": "–" if value is None else f"{value:.4f}",
                "interval": "–" if low is None else f"{low:.4f} to {high:.4f}",
                "rows": str(entry["n"]),
            }
        )
    return rows


if __name__ == "__main__":
    sys.exit(main())
