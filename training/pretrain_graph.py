# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Pretrain the graph encoder on structures alone, with the standard `transformers` Trainer.

    python -m training.pretrain_graph training/recipes/pretraining/qm9.yaml
    python -m training.pretrain_graph --molecules list.smi moses --output_dir runs/encoder
    python -m training.finetune RECIPE.yaml --graph_encoder runs/encoder

From each molecule it learns RDKit's descriptors and Morgan bits, and the types of atoms and bonds
that are hidden in a copy of it. `output_dir` gets the encoder (`config.json`, `model.safetensors`),
`pretraining.json`, `pretraining.png`, `rejected.jsonl`, and the Trainer's checkpoints. Every key of
a recipe is also a flag; `--help` lists them all.
"""

import dataclasses
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, concatenate_datasets
from rich.console import Console
from rich.table import Table
from transformers import Trainer, TrainingArguments, set_seed

from modeling_mora import MoleculeFeatureExtractor
from training.checkpoints import choose_checkpoint
from training.data.rejections import Rejections, rejection_table
from training.graph_pretraining.arguments import PretrainingArguments, parse_arguments
from training.graph_pretraining.collator import MASK_SHARE, PretrainingCollator
from training.graph_pretraining.curve import save_curve
from training.graph_pretraining.model import GraphPretrainingModel
from training.graph_pretraining.molecules import (
    draw_rows,
    held_out_molecules,
    open_molecules,
)
from training.graph_pretraining.scores import LABELS, constant_scores, make_scorer, score_table
from training.graph_pretraining.targets import DESCRIPTORS, build_targets, measure

REJECTED_FILE = "rejected.jsonl"
PACKAGES = ("datasets", "modeling-mora", "rdkit", "torch", "transformers")


def main(arguments: list[str] | None = None) -> None:
    """Run `training.pretrain_graph` with these arguments (the process's own if None)."""
    try:
        args, training_args = parse_arguments(sys.argv[1:] if arguments is None else arguments)
        molecules = read_molecules(args, training_args)
    except (ValueError, OSError) as error:
        sys.exit(f"training.pretrain_graph: error: {error}")
    pretrain(args, training_args, molecules)


@dataclasses.dataclass(frozen=True)
class Molecules:
    """Molecules with their targets.

    Attributes:
        train: rows as from `build_targets`, no molecule twice.
        held_out: others, which are only scored.
        counts: by source: `rows`, `rejected`, `duplicates`, `excluded` and `used`.
    """

    train: Dataset
    held_out: Dataset
    counts: dict[str, dict[str, int]]


def read_molecules(args: PretrainingArguments, training_args: TrainingArguments) -> Molecules:
    """Open the lists, compute all targets, leave out what is to be left out, and split.

    Raises:
        ValueError: a list cannot be read, holds too many bad rows or too few molecules.
        OSError: a list is not there.
    """
    excluded = set().union(*map(held_out_molecules, args.exclude))
    rows = concatenate_datasets(
        [open_molecules(source, args.molecule_column) for source in dict.fromkeys(args.molecules)]
    )
    rows = draw_rows(rows, args.max_molecules, training_args.seed)
    is_main = training_args.process_index == 0
    path = None
    if is_main:
        path = Path(training_args.output_dir) / REJECTED_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("", encoding="utf-8")
    rejections = {
        source: Rejections(source, path, args.max_rejected) for source in rows.unique("source")
    }
    extractor = MoleculeFeatureExtractor(max_atoms=args.max_atoms)
    # The first process fills the cache that the others read.
    with training_args.main_process_first(desc="Descriptors and fingerprints"):
        built = build_targets(rows, extractor, rejections, args.num_proc)
    kept, counts = keep_distinct(built, rejections, excluded)
    if is_main:
        console = Console()
        console.print(rejection_table(rejections.values()))
        console.print(count_table(counts))
    for one in rejections.values():
        one.check()
    if len(kept) <= args.held_out_molecules:
        raise ValueError(
            f"{len(kept)} molecules are left, and held_out_molecules={args.held_out_molecules} of "
            "them are not learned from: name more molecules or hold out fewer."
        )
    splits = kept.train_test_split(args.held_out_molecules, seed=training_args.seed)
    return Molecules(splits["train"], splits["test"], counts)


def keep_distinct(
    built: Dataset, rejections: dict[str, Rejections], excluded: set[str]
) -> tuple[Dataset, dict[str, dict[str, int]]]:
    """Leave out what is there twice and what is excluded, and count by source.

    Args:
        built: rows as from `build_targets`.
        rejections: by source.
        excluded: canonical SMILES.

    Returns:
        The rows that are left, and the `counts` of `Molecules`.
    """
    counts = {
        source: {
            "rows": one.accepted + one.lost,
            "rejected": one.lost,
            "duplicates": 0,
            "excluded": 0,
            "used": 0,
        }
        for source, one in rejections.items()
    }
    seen, kept = set(), []
    for row, (smiles, source) in enumerate(
        zip(built["smiles"][:], built["source"][:], strict=True)
    ):
        if smiles in excluded:
            counts[source]["excluded"] += 1
        elif smiles in seen:
            counts[source]["duplicates"] += 1
        else:
            seen.add(smiles)
            kept.append(row)
            counts[source]["used"] += 1
    return built.select(kept), counts


def pretrain(
    args: PretrainingArguments, training_args: TrainingArguments, molecules: Molecules
) -> Trainer:
    """Train the encoder with its heads and save the encoder to `training_args.output_dir`.

    Args:
        args: the encoder's configuration, and what is noted in `pretraining.json`.
        training_args: the Trainer's own settings.
        molecules: from `read_molecules`.

    Returns:
        The Trainer, after training.
    """
    statistics = measure(molecules.train)
    set_seed(training_args.seed)  # the Trainer sets it too, but the fresh weights are drawn here
    model = GraphPretrainingModel.from_statistics(args.make_graph_config(), statistics)
    training_args.label_names = LABELS
    training_args.dataloader_pin_memory &= torch.accelerator.is_available()
    trainer = Trainer(
        model=model,
        args=training_args,
        data_collator=PretrainingCollator(MoleculeFeatureExtractor(), training_args.seed),
        train_dataset=molecules.train.with_format("numpy"),
        eval_dataset=molecules.held_out.with_format("numpy"),
        compute_metrics=make_scorer(model.config),
    )
    resume = training_args.resume_from_checkpoint
    if resume == "true":
        resume, message = choose_checkpoint(Path(training_args.output_dir))
        print(message)
    trained = trainer.train(resume_from_checkpoint=resume and str(resume))
    predicted = trainer.predict(trainer.eval_dataset, metric_key_prefix="final")
    trainer.save_state()
    if trainer.is_world_process_zero():
        output_dir = Path(training_args.output_dir)
        model.graph_encoder.save_pretrained(output_dir)
        scores = trainer.compute_metrics(predicted)
        constant = constant_scores(predicted.label_ids, model.config, statistics)
        save_curve(trainer.state.log_history, constant, output_dir / "pretraining.png")
        report = {
            "settings": dataclasses.asdict(args) | {"seed": training_args.seed},
            "molecules": {"train": len(molecules.train), "held_out": len(molecules.held_out)},
            "sources": molecules.counts,
            "descriptors": DESCRIPTORS,
            "mask_share": MASK_SHARE,
            "parameters": model.graph_encoder.num_parameters(),
            "steps": trainer.state.global_step,
            # The Trainer counts the steps before a resumption too, but not their time.
            "molecules_per_second": None if resume else trained.metrics["train_samples_per_second"],
            "scores": scores,
            "constant_scores": constant,
            "versions": {package: version(package) for package in PACKAGES},
        }
        write_report(report, output_dir / "pretraining.json")
        console = Console()
        console.print(score_table(scores, constant, len(molecules.held_out)))
        console.print(f"Saved the encoder to {output_dir}", soft_wrap=True)
    return trainer


def write_report(report: dict[str, Any], path: Path) -> None:
    """Write `pretraining.json`."""
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def count_table(counts: dict[str, dict[str, int]]) -> Table:
    """What became of the rows of each source, for the screen."""
    table = Table(title="Molecules", title_justify="left")
    table.add_column("source", overflow="fold")
    for column in next(iter(counts.values())):
        table.add_column(column, justify="right")
    for source, numbers in counts.items():
        table.add_row(source, *(f"{number:,}" for number in numbers.values()))
    return table


if __name__ == "__main__":
    main()
