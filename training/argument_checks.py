# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""What is refused before anything heavy runs."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from accelerate.utils import parse_flag_from_env
from transformers import AutoConfig, TrainingArguments
from transformers.integrations import (
    get_reporting_integration_callbacks,
    is_deepspeed_zero3_enabled,
)

from modeling_mora.base_models_mora import WHEEL_BASES, resolve_base
from modeling_mora.tasks_mora import get_task
from training.checkpoints import choose_checkpoint, is_complete
from training.data.prepared import read_info
from training.graph_encoder import check_graph_encoder
from training.scoring import possible_scores

if TYPE_CHECKING:  # `training.arguments` imports this file
    from training.arguments import DataArguments, ModelArguments

BASE_DTYPES = ("auto", "float32", "bfloat16", "float16")
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


def check_method(
    model_args: "ModelArguments", data_args: "DataArguments", flags: list[str]
) -> None:
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
    unused = dict.fromkeys(unused_arguments(model_args), model_args)
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


def unused_arguments(model_args: "ModelArguments") -> list[str]:
    """The arguments that are not at their default, but mean nothing to the method."""
    names = UNUSED[model_args.method]
    if model_args.method in ("lora", "graph_prefix") and model_args.lora_match == "parameters":
        # The others say how large the MoRA is that is to be matched.
        names = ("generator_learning_rate",) if model_args.method == "lora" else ()
    default = type(model_args)()
    return [name for name in names if getattr(model_args, name) != getattr(default, name)]


def check_arguments(
    model_args: "ModelArguments", data_args: "DataArguments", training_args: TrainingArguments
) -> None:
    """Refuse values that would fail late or train nothing.

    Raises:
        ValueError: names the key, its value and what to do.
    """
    if model_args.base_dtype not in BASE_DTYPES:
        raise ValueError(f"base_dtype={model_args.base_dtype!r}: use one of {BASE_DTYPES}.")
    check_amounts(
        training_args,
        generator_learning_rate=model_args.generator_learning_rate,
        train_molecules=data_args.train_molecules,
        max_length=data_args.max_length,
        preprocessing_num_workers=data_args.preprocessing_num_workers,
    )
    if not 0 <= data_args.hide_string <= 1:
        raise ValueError(f"hide_string={data_args.hide_string}: give a share from 0 to 1.")
    check_monitors(data_args, training_args)
    if data_args.prepared is not None:
        check_prepared(data_args, training_args)
    elif training_args.eval_strategy != "no" and data_args.validation_molecules == 0:
        raise ValueError(
            f"eval_strategy={training_args.eval_strategy.value} needs validation_molecules above 0."
        )
    check_best_metric(data_args, training_args)
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


def check_amounts(training_args: TrainingArguments, **others: float | None) -> None:
    """Refuse what has to be above 0 and is not, and a training of no steps.

    Args:
        training_args: its rate, batches and length.
        others: more that has to be above 0, by key; None stands for a default.

    Raises:
        ValueError: names the key, its value and what to do.
    """
    positive = {
        "learning_rate": training_args.learning_rate,
        "per_device_train_batch_size": training_args.per_device_train_batch_size,
        "per_device_eval_batch_size": training_args.per_device_eval_batch_size,
        "gradient_accumulation_steps": training_args.gradient_accumulation_steps,
        **others,
    }
    for key, value in positive.items():
        if value is not None and not value > 0:
            raise ValueError(f"{key}={value}: give a number above 0.")
    if training_args.max_steps == 0 or (
        training_args.max_steps < 0 and not training_args.num_train_epochs > 0
    ):
        raise ValueError(
            f"max_steps={training_args.max_steps}, num_train_epochs="
            f"{training_args.num_train_epochs}: nothing to train. Set one of them above 0."
        )


def check_monitors(data_args: "DataArguments", training_args: TrainingArguments) -> None:
    """Make sure that what is to watch the run can do so, and that the best score is the best.

    Args:
        training_args: `report_to` is split at commas, `trackio_static_space_id` is set to False
            unless it is given, and `greater_is_better` where the best model has the least error.

    Raises:
        ValueError: names the key or the package that is missing, or says that answers cannot be
            scored where weights are cut up.
    """
    if data_args.score_rows < 0:
        raise ValueError(f"score_rows={data_args.score_rows}: give a number of rows, or 0.")
    if data_args.score_rows > 0 and training_args.eval_strategy == "no":
        raise ValueError(
            f"score_rows={data_args.score_rows} rows are scored at each evaluation, of which "
            "eval_strategy=no has none: give eval_strategy: steps and eval_steps."
        )
    if data_args.score_rows > 0 and (
        is_deepspeed_zero3_enabled()
        or training_args.fsdp
        or parse_flag_from_env("ACCELERATE_USE_FSDP")
    ):
        raise ValueError(
            f"score_rows={data_args.score_rows} needs whole weights in each process, which ZeRO-3 "
            "and FSDP2 cut up: leave it out, and score checkpoints with eval.benchmark."
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


def check_prepared(data_args: "DataArguments", training_args: TrainingArguments) -> None:
    """Make sure that prepared data are there and alone say what is learned.

    Raises:
        ValueError: names the folder or the key, and what to do.
    """
    default = type(data_args)()
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


def check_best_metric(data_args: "DataArguments", training_args: TrainingArguments) -> None:
    """Make sure that the evaluations log what the best model is chosen by.

    Which scores the rows have that are chosen for `score_rows` is not known yet, only their tasks.

    Raises:
        ValueError: names the metric and those there are.
    """
    best = training_args.metric_for_best_model
    if best is None:
        return
    if training_args.eval_strategy == "no":
        raise ValueError(
            f"metric_for_best_model={best} is of an evaluation, of which eval_strategy=no has "
            "none: give eval_strategy: steps and eval_steps, or leave it out."
        )
    tasks = {"property_prediction": {}}  # QM9's, in one unit
    if data_args.prepared is not None:
        tasks = read_info(data_args.prepared)["tasks"]
    scores = possible_scores(get_task(name, **settings) for name, settings in tasks.items())
    metric = f"eval_{best.removeprefix('eval_')}"
    if data_args.score_rows == 0 and metric in scores:
        raise ValueError(
            f"metric_for_best_model={best} is a score of answers, of which score_rows=0 gives "
            "none: say how many, such as score_rows: 32, or use eval_loss."
        )
    known = ["eval_loss", *(scores if data_args.score_rows > 0 else [])]
    if metric not in known:
        hint = "" if data_args.score_rows > 0 else f", and with score_rows {', '.join(scores)}"
        raise ValueError(f"metric_for_best_model={best}: there is {', '.join(known)}{hint}.")


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
        base: a short name, a local folder or a Hub id.

    Raises:
        ValueError: no such base.
    """
    try:
        AutoConfig.from_pretrained(resolve_base(base))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"base={base!r} is neither a short name ({', '.join(WHEEL_BASES)}), a local folder "
            "with a model, nor a model on the Hub that can be read from here "
            f"({str(error).splitlines()[0]})."
        ) from error
