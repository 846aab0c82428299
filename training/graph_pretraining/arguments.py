# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""What `training.pretrain_graph` can be told, and the checks before anything heavy runs."""

import json
from dataclasses import dataclass, field, fields
from pathlib import Path

from transformers import HfArgumentParser, TrainingArguments

from modeling_mora import MoraGraphConfig
from training.argument_checks import check_amounts, check_output_dir
from training.recipe_files import recipe_flags

# The vocabulary is the feature extractor's, so its sizes are not for setting.
GRAPH_SETTINGS = ("form", "hidden_size", "num_layers", "dropout")


@dataclass
class PretrainingArguments:
    """Which molecules to learn from, and the encoder's form."""

    molecules: list[str] = field(
        default_factory=list,
        metadata={
            "help": "qm9, moses, nci, SMILES files, tables, folders of tables or data sets on the "
            "Hub; several are joined."
        },
    )
    molecule_column: str | None = field(
        default=None, metadata={"help": "Column of the molecules in tables; found by its name."}
    )
    max_molecules: int | None = field(
        default=None, metadata={"help": "Use this many rows, drawn at random with `seed`."}
    )
    held_out_molecules: int = field(
        default=1000, metadata={"help": "Molecules that are only scored, never learned from."}
    )
    exclude: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Folders of prepared data or recipes of training.finetune, whose validation "
            "and test molecules are left out."
        },
    )
    graph_config: str | None = field(
        default=None,
        metadata={
            "help": f"Settings of MoraGraphConfig ({', '.join(GRAPH_SETTINGS)}): a YAML mapping, "
            "or JSON on the command line."
        },
    )
    max_atoms: int = field(
        default=256, metadata={"help": "Molecules with more heavy atoms are rejected."}
    )
    max_rejected: float = field(
        default=0.05, metadata={"help": "More rejected rows of a source than this share stop it."}
    )
    num_proc: int = field(default=1, metadata={"help": "Processes that compute the targets."})

    def make_graph_config(self) -> MoraGraphConfig:
        """The encoder's configuration, its own defaults where nothing is said."""
        return MoraGraphConfig(**json.loads(self.graph_config or "{}"))


@dataclass
class PretrainingTrainingArguments(TrainingArguments):
    """`TrainingArguments` with other defaults, which suit small graphs."""

    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    lr_scheduler_type: str = "cosine"
    warmup_steps: float = 0.05
    per_device_train_batch_size: int = 128
    per_device_eval_batch_size: int = 128
    num_train_epochs: float = 3.0
    # So that few atoms of a batch are padding.
    train_sampling_strategy: str = "group_by_length"
    length_column_name: str = "atoms"
    # The Trainer would drop what the collator makes the inputs of.
    remove_unused_columns: bool = False
    logging_steps: float = 0.02
    eval_strategy: str = "steps"
    eval_steps: float | None = 0.1
    save_strategy: str = "steps"
    save_steps: float = 0.2
    save_total_limit: int | None = 1


def parse_arguments(
    arguments: list[str],
) -> tuple[PretrainingArguments, PretrainingTrainingArguments]:
    """Read `[RECIPE.yaml] [--key value ...]`; a flag wins over the recipe.

    Args:
        arguments: the command line without the program's name.

    Raises:
        ValueError: an unknown key or flag, or a value that cannot work.
        OSError: the recipe cannot be read.
        SystemExit: a value of the wrong type (argparse), or `--help`.
    """
    parser = HfArgumentParser(
        (PretrainingArguments, PretrainingTrainingArguments),
        prog="python -m training.pretrain_graph",
        usage="%(prog)s [RECIPE.yaml] [--key value ...]",
        allow_abbrev=False,
    )
    if arguments and not arguments[0].startswith("-"):
        known = [key.name for kind in parser.dataclass_types for key in fields(kind) if key.init]
        arguments = recipe_flags(Path(arguments[0]), known) + arguments[1:]
    args, training_args = parser.parse_args_into_dataclasses(arguments, look_for_args_file=False)
    check_arguments(args, training_args)
    return args, training_args


def check_arguments(args: PretrainingArguments, training_args: TrainingArguments) -> None:
    """Refuse values that would fail late or train nothing.

    Raises:
        ValueError: names the key, its value and what to do.
    """
    if not args.molecules:
        raise ValueError("molecules is missing: name a file of molecules, qm9, moses or nci.")
    check_amounts(
        training_args,
        max_molecules=args.max_molecules,
        held_out_molecules=args.held_out_molecules,
        max_atoms=args.max_atoms,
        num_proc=args.num_proc,
    )
    if not 0 <= args.max_rejected <= 1:
        raise ValueError(f"max_rejected={args.max_rejected}: give a share from 0 to 1.")
    if training_args.push_to_hub:
        raise ValueError(
            "push_to_hub would upload the heads too: upload the finished encoder with `hf upload "
            f"USER/NAME {training_args.output_dir} --exclude 'checkpoint-*'`."
        )
    check_graph_config(args.graph_config)
    check_output_dir(training_args)


def check_graph_config(text: str | None) -> None:
    """Refuse what is no setting of the encoder.

    Raises:
        ValueError: no JSON, an unknown key or an impossible value.
    """
    try:
        settings = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise ValueError(
            f"graph_config={text!r} is not JSON ({error}). Write it like '{{\"num_layers\": 3}}'."
        ) from None
    for key in settings:
        if key not in GRAPH_SETTINGS:
            raise ValueError(f"graph_config has {key!r}: use {', '.join(GRAPH_SETTINGS)}.")
    MoraGraphConfig(**settings)
