# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""What `training.finetune` can be told."""

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser, TrainingArguments

from modeling_mora.base_models_mora import resolve_base
from training.argument_checks import check_arguments, check_method
from training.recipe_files import read_recipe, recipe_flags

# Model arguments that are no settings of `MoraConfig`.
NOT_OF_CONFIG = (
    "method",
    "lora_match",
    "base",
    "base_dtype",
    "attn_implementation",
    "chat_template",
    "generator_learning_rate",
    "graph_encoder",
    "dry_run",
)


@dataclass
class ModelArguments:
    """The method, the base LLM, and `MoraConfig`'s settings, whose own defaults hold.

    The methods that MoRA is compared with use those of the settings that mean something to them:
    LoRA has the same `rank`, `alpha` and modules, the graph prefix also the same graph encoder.
    """

    method: str = field(
        default="mora",
        metadata={
            "help": "What is trained: mora, lora, graph_prefix (encoded atoms as embeddings in "
            "front of the text, and LoRA) or full_finetune (all weights of the base)."
        },
    )
    lora_match: str = field(
        default="rank",
        metadata={
            "help": "For lora and graph_prefix: `rank` takes the rank that is given, `parameters` "
            "the one with which as many parameters are trained as by mora with these settings."
        },
    )
    base: str = field(
        default="smollm2",
        metadata={"help": "Frozen LLM: 'smollm2', 'gemma3-270m', a local folder or a Hub id."},
    )
    base_dtype: str = field(
        default="auto",
        metadata={"help": "Number format of the frozen LLM: float32, bfloat16, float16 or auto."},
    )
    attn_implementation: str | None = field(
        default=None,
        metadata={
            "help": "How the base LLM computes attention: sdpa, eager (in bfloat16 the fastest on "
            "CPUs), flash_attention_2, …; transformers' own choice when not given."
        },
    )
    chat_template: str | None = field(
        default=None,
        metadata={"help": "Jinja text of the chat template, for a base whose tokenizer has none."},
    )
    generator_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Learning rate of weight generator, graph encoder and projector; "
            "`learning_rate` is the adapter's and holds for all when this one is not given."
        },
    )
    generator_type: str | None = field(default=None, metadata={"help": "'core' or 'dense'."})
    rank: int | None = field(default=None, metadata={"help": "Rank of the weights added."})
    core_dim: int | None = field(default=None, metadata={"help": "Columns of the shared A."})
    alpha: float | None = field(
        default=None, metadata={"help": "Scale of the delta is alpha/rank."}
    )
    target_modules: list[str] | None = field(
        default=None, metadata={"help": "Endings of module names, or all-linear."}
    )
    layers_to_transform: list[int] | None = field(
        default=None, metadata={"help": "Adapt only these layers of the base, counted from 0."}
    )
    layer_stride: int | None = field(default=None, metadata={"help": "Adapt every n-th layer."})
    generator_dim: int | None = field(default=None, metadata={"help": "Generator's width."})
    generator_depth: int | None = field(default=None, metadata={"help": "Generator's blocks."})
    generator_heads: int | None = field(default=None, metadata={"help": "Its attention heads."})
    generator_per_type: bool | None = field(
        default=None, metadata={"help": "A separate stack of blocks for each module type."}
    )
    delta_init_scale: float | None = field(
        default=None, metadata={"help": "Size of the generated part at the start."}
    )
    freeze_graph_encoder: bool | None = field(
        default=None, metadata={"help": "Keep the graph encoder as it is."}
    )
    graph_config: str | None = field(
        default=None,
        metadata={
            "help": "Settings of `MoraGraphConfig`: a YAML mapping, or JSON on the command line."
        },
    )
    graph_encoder: str | None = field(
        default=None,
        metadata={
            "help": "A pretrained graph encoder in place of a new one: a folder that "
            "training.pretrain_graph wrote, a Hub id, or MoleculeSTM's molecule_model.pth."
        },
    )
    dry_run: bool = field(
        default=False,
        metadata={
            "help": "Check everything and print the plan: parameters, steps, tokens, memory, disk. "
            "Nothing is trained, and nothing is written to output_dir."
        },
    )

    @property
    def base_path(self) -> str:
        """Folder or Hub id of the base LLM."""
        return resolve_base(self.base)

    def loading_settings(self) -> dict[str, Any]:
        """What `from_pretrained` of the base LLM is told, beside where it is."""
        settings = {"dtype": self.base_dtype}
        if self.attn_implementation is not None:
            settings["attn_implementation"] = self.attn_implementation
        return settings

    def mora_settings(self) -> dict[str, Any]:
        """The keyword arguments of `MoraConfig` that were given."""
        settings = {
            name: value
            for name, value in vars(self).items()
            if name not in NOT_OF_CONFIG and value is not None
        }
        if self.target_modules == ["all-linear"]:
            settings["target_modules"] = "all-linear"
        if self.graph_config is not None:
            settings["graph_config"] = json.loads(self.graph_config)
        return settings


@dataclass
class DataArguments:
    """Which questions to learn from: prepared data, or QM9 in numbers of molecules."""

    prepared: str | None = field(
        default=None,
        metadata={"help": "Folder written by training.prepare; without it, QM9 as set below."},
    )
    properties: list[str] = field(
        default_factory=lambda: ["gap"], metadata={"help": "From homo, lumo and gap."}
    )
    train_molecules: int = field(default=3520, metadata={"help": "Molecules to train on."})
    validation_molecules: int = field(
        default=160, metadata={"help": "Molecules for the loss shown during training."}
    )
    test_molecules: int = field(default=400, metadata={"help": "Molecules held out for eval."})
    split_seed: int = field(default=0, metadata={"help": "Seed of the split over molecules."})
    max_length: int | None = field(
        default=None,
        metadata={
            "help": "Longest example in tokens; longer ones are left out. By default that of the "
            "prepared data, or 256."
        },
    )
    preprocessing_num_workers: int = field(
        default=1, metadata={"help": "Processes that tokenise the questions."}
    )
    score_rows: int = field(
        default=0,
        metadata={
            "help": "Validation questions that are answered and scored at each evaluation, beside "
            "the loss; 0 for none."
        },
    )
    hide_string: float = field(
        default=0.0,
        metadata={
            "help": "Share of the training questions, from 0 to 1, that do not hold the molecule's "
            "string, so that only the graph says what it is; `seed` draws them."
        },
    )

    @staticmethod
    def qm9_keys() -> tuple[str, ...]:
        """The keys that have no meaning next to `prepared`."""
        return (
            "properties",
            "train_molecules",
            "validation_molecules",
            "test_molecules",
            "split_seed",
        )

    def qm9_settings(self) -> dict[str, Any]:
        """The keyword arguments of `training.data.qm9.load_qm9`."""
        return {
            "properties": self.properties,
            "train": self.train_molecules,
            "validation": self.validation_molecules,
            "test": self.test_molecules,
            "seed": self.split_seed,
        }


def parse_arguments(
    arguments: list[str],
) -> tuple[ModelArguments, DataArguments, TrainingArguments]:
    """Read a recipe and flags: `[RECIPE.yaml] [--key value ...]`; a flag wins over the recipe.

    Args:
        arguments: the command line without the program's name.

    Raises:
        ValueError: an unknown key or flag, or a value that cannot work.
        OSError: the recipe cannot be read.
        SystemExit: a value of the wrong type (argparse), or `--help`.
    """
    parser = HfArgumentParser(
        (ModelArguments, DataArguments, TrainingArguments),
        prog="python -m training.finetune",
        usage="%(prog)s [RECIPE.yaml] [--key value ...]",
        allow_abbrev=False,
    )
    recipe = Path(arguments[0]) if arguments and not arguments[0].startswith("-") else None
    flags = arguments if recipe is None else arguments[1:]
    if recipe is not None:
        known = [key.name for kind in parser.dataclass_types for key in fields(kind) if key.init]
        arguments = recipe_flags(recipe, known) + flags
    model_args, data_args, training_args = parser.parse_args_into_dataclasses(
        arguments, look_for_args_file=False
    )
    if recipe is not None and data_args.prepared is None and "data" in read_recipe(recipe):
        # It would train on QM9 otherwise, whatever the section says.
        raise ValueError(
            f"{recipe} has a data section, but `prepared` does not say where its data are: run "
            f"`python -m training.prepare {recipe} --output_dir DIR` and add `--prepared DIR`."
        )
    check_method(model_args, data_args, flags)
    check_arguments(model_args, data_args, training_args)
    return model_args, data_args, training_args
