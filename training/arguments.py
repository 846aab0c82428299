# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""What `training.finetune` can be told, and the checks that come before anything heavy runs."""

import difflib
import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from transformers import AutoConfig, HfArgumentParser, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

from training.base_model import WHEEL_BASES
from training.checkpoints import choose_checkpoint, is_complete
from training.data.prepared import read_info
from training.graph_encoder import check_graph_encoder

BASE_DTYPES = ("auto", "float32", "bfloat16", "float16")
# Model arguments that are no settings of `MoraConfig`.
NOT_OF_CONFIG = (
    "method",
    "lora_match",
    "base",
    "base_dtype",
    "chat_template",
    "generator_learning_rate",
    "graph_encoder",
    "dry_run",
)

LORA_MATCHES = ("rank", "parameters")
OF_ADAPTER = ("rank", "alpha", "target_modules", "layers_to_transform", "layer_stride")
OF_GENERATOR = (
    "generator_type",
    "core_dim",
    "generator_dim",
    "generator_depth",
    "generator_heads",
    "generator_per_type",
    "delta_init_scale",
)
OF_GRAPH = ("freeze_graph_encoder", "graph_config", "graph_encoder")
# For each method, the model arguments that mean nothing to it.
UNUSED = {
    "mora": ("lora_match",),
    "lora": (*OF_GENERATOR, *OF_GRAPH, "generator_learning_rate"),
    "graph_prefix": OF_GENERATOR,
    "full_finetune": (
        "lora_match",
        *OF_ADAPTER,
        *OF_GENERATOR,
        *OF_GRAPH,
        "generator_learning_rate",
    ),
}


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

    def unused(self) -> list[str]:
        """The arguments that are not at their default, but mean nothing to the method."""
        names = UNUSED[self.method]
        if self.method in ("lora", "graph_prefix") and self.lora_match == "parameters":
            # The others say how large the MoRA is that is to be matched.
            names = ("generator_learning_rate",) if self.method == "lora" else ()
        default = ModelArguments()
        return [name for name in names if getattr(self, name) != getattr(default, name)]


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


def recipe_flags(path: Path, known: list[str]) -> list[str]:
    """Turn a YAML recipe into the flags that say the same, so that one parser checks both.

    Args:
        path: the YAML file, one mapping of keys to values.
        known: the keys that may be used.

    Raises:
        ValueError: not a mapping, or an unknown key.
    """
    settings = read_recipe(path)
    settings.pop("data", None)  # for training.prepare
    for key in settings:
        if key not in known:
            similar = difflib.get_close_matches(str(key), known, n=1)
            hint = f" Did you mean {similar[0]!r}?" if similar else ""
            raise ValueError(f"{path}: unknown key {key!r}.{hint}")
    return as_flags(settings)


def as_flags(settings: dict[str, Any]) -> list[str]:
    """The command line that says the same as these keys and values of a recipe."""
    flags = []
    for key, value in settings.items():
        if value is None:
            continue
        if isinstance(value, dict):
            value = json.dumps(value)
        if key == "report_to" and isinstance(value, list):  # the parser takes one value there
            value = ",".join(value)
        values = value if isinstance(value, list) else [value]
        # `--key=value` for a single one, since argparse takes a lone negative value for a flag.
        if len(values) == 1:
            flags.append(f"--{key}={values[0]}")
        else:
            flags.extend([f"--{key}", *map(str, values)])
    return flags


def read_recipe(path: Path) -> dict[str, Any]:
    """The keys and values of a recipe.

    Raises:
        ValueError: it is no mapping.
    """
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(recipe, dict):
        raise ValueError(f"{path}: a recipe is a mapping of keys to values, like `rank: 16`.")
    return recipe


def check_method(model_args: ModelArguments, data_args: DataArguments, flags: list[str]) -> None:
    """Refuse flags that mean nothing to the method, and set such keys of a recipe aside.

    One recipe serves all methods that are compared, so it may say more than one of them uses; a
    flag is meant for this run.

    Args:
        model_args: those keys are put back to their defaults.
        data_args: so is `hide_string`, for a method that reads no graphs.
        flags: the command line behind the recipe.

    Raises:
        ValueError: names the flag, or an unknown method and those there are.
    """
    if model_args.method not in UNUSED:
        raise ValueError(f"method={model_args.method!r}: use one of {', '.join(UNUSED)}.")
    if model_args.lora_match not in LORA_MATCHES:
        raise ValueError(
            f"lora_match={model_args.lora_match!r}: use one of {', '.join(LORA_MATCHES)}."
        )
    given = {flag[2:].partition("=")[0].replace("-", "_") for flag in flags}
    unused = dict.fromkeys(model_args.unused(), model_args)
    if data_args.hide_string != 0 and "graph_encoder" in UNUSED[model_args.method]:
        unused["hide_string"] = data_args
    for name, of in unused.items():
        if name in given:
            raise ValueError(
                f"{name}={getattr(of, name)} means nothing to method={model_args.method}: leave it "
                "out."
            )
    if unused:
        print(f"Of the recipe, method={model_args.method} does not use {', '.join(unused)}.")
    for name, of in unused.items():
        setattr(of, name, getattr(type(of)(), name))


def check_arguments(
    model_args: ModelArguments, data_args: DataArguments, training_args: TrainingArguments
) -> None:
    """Refuse values that would fail late or train nothing.

    Raises:
        ValueError: names the key, its value and what to do.
    """
    positive = {
        "learning_rate": training_args.learning_rate,
        "generator_learning_rate": model_args.generator_learning_rate,
        "per_device_train_batch_size": training_args.per_device_train_batch_size,
        "per_device_eval_batch_size": training_args.per_device_eval_batch_size,
        "gradient_accumulation_steps": training_args.gradient_accumulation_steps,
        "train_molecules": data_args.train_molecules,
        "max_length": data_args.max_length,
    }
    if model_args.base_dtype not in BASE_DTYPES:
        raise ValueError(f"base_dtype={model_args.base_dtype!r}: use one of {BASE_DTYPES}.")
    for key, value in positive.items():
        if value is not None and not value > 0:
            raise ValueError(f"{key}={value}: give a number above 0.")
    if not 0 <= data_args.hide_string <= 1:
        raise ValueError(f"hide_string={data_args.hide_string}: give a share from 0 to 1.")
    if training_args.max_steps == 0 or (
        training_args.max_steps < 0 and not training_args.num_train_epochs > 0
    ):
        raise ValueError(
            f"max_steps={training_args.max_steps}, num_train_epochs="
            f"{training_args.num_train_epochs}: nothing to train. Set one of them above 0."
        )
    check_monitors(data_args, training_args)
    if data_args.prepared is not None:
        check_prepared(data_args, training_args)
    elif training_args.eval_strategy != "no" and data_args.validation_molecules == 0:
        raise ValueError(
            f"eval_strategy={training_args.eval_strategy.value} needs validation_molecules above 0."
        )
    if model_args.graph_config is not None:
        try:
            json.loads(model_args.graph_config)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"graph_config={model_args.graph_config!r} is not JSON ({error}). "
                "Write it like '{\"num_layers\": 3}'."
            ) from None
    if model_args.graph_encoder is not None:
        if model_args.graph_config is not None:
            raise ValueError("graph_encoder has its own graph_config: give only one of them.")
        check_graph_encoder(model_args.graph_encoder)
    check_output_dir(training_args)


def check_monitors(data_args: DataArguments, training_args: TrainingArguments) -> None:
    """Make sure that what is to watch the run is there, and that the best score is the best.

    Args:
        training_args: `report_to` is split at commas, `trackio_static_space_id` is set to False
            unless it is given, and `greater_is_better` where the best model has the least error.

    Raises:
        ValueError: names the key or the package that is missing.
    """
    if data_args.score_rows < 0:
        raise ValueError(f"score_rows={data_args.score_rows}: give a number of rows, or 0.")
    if data_args.score_rows > 0 and training_args.eval_strategy == "no":
        raise ValueError(
            f"score_rows={data_args.score_rows} rows are scored at each evaluation, of which "
            "eval_strategy=no has none: give eval_strategy: steps and eval_steps."
        )
    # The Trainer takes what does not end in `loss` for better when greater.
    best = (training_args.metric_for_best_model or "").removeprefix("eval_")
    if best.split("_")[0] == "mae":
        training_args.greater_is_better = False
    names = [name for entry in training_args.report_to for name in entry.split(",")]
    try:
        for reporter in get_reporting_integration_callbacks(names):
            reporter()
    except (ImportError, RuntimeError, ValueError) as error:
        raise ValueError(f"report_to={','.join(names)}: {error}") from error
    training_args.report_to = names
    # Otherwise transformers makes a Space of a run with trackio whenever the model is pushed.
    if getattr(training_args, "trackio_static_space_id", None) is None:
        training_args.trackio_static_space_id = False


def check_prepared(data_args: DataArguments, training_args: TrainingArguments) -> None:
    """Make sure that prepared data are there and alone say what is learned.

    Raises:
        ValueError: names the folder or the key, and what to do.
    """
    default = DataArguments()
    for key in default.qm9_keys():
        if getattr(data_args, key) != getattr(default, key):
            raise ValueError(
                f"{key}={getattr(data_args, key)} is for QM9, but prepared="
                f"{data_args.prepared!r} says which data to use: give one of the two."
            )
    rows = read_info(data_args.prepared)["rows"]
    if training_args.eval_strategy != "no" and not rows.get("validation"):
        raise ValueError(
            f"eval_strategy={training_args.eval_strategy.value} needs a validation split, but "
            f"{data_args.prepared!r} has only {', '.join(rows)}."
        )


def check_output_dir(training_args: TrainingArguments) -> None:
    """Refuse to mix two runs in one folder, and to resume from a checkpoint that is not there.

    Raises:
        ValueError: names the folder and what to do.
    """
    output_dir = Path(training_args.output_dir)
    resume = training_args.resume_from_checkpoint
    if resume is None and any(output_dir.glob("checkpoint-*")):
        raise ValueError(
            f"output_dir={str(output_dir)!r} holds checkpoints of an earlier run. Add "
            "`--resume_from_checkpoint true` to go on with it, or choose another output_dir."
        )
    if resume == "true":
        choose_checkpoint(output_dir)
    elif resume is not None and not is_complete(Path(resume)):
        raise ValueError(
            f"resume_from_checkpoint={resume!r} is not a complete checkpoint folder. Give one that "
            "holds trainer_state.json, or `true` for the newest in output_dir."
        )


def check_base(base: str) -> None:
    """Read the configuration of the base LLM, to see early that the base is there.

    Args:
        base: a local folder or a Hub id.

    Raises:
        ValueError: no such base.
    """
    try:
        AutoConfig.from_pretrained(base)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"base={base!r} is neither a short name ({', '.join(WHEEL_BASES)}), a local folder "
            "with a model, nor a model on the Hub that can be read from here "
            f"({str(error).splitlines()[0]})."
        ) from error
