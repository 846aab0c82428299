# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""What a run is going to do and to need, before it starts: the output of `--dry_run`.

Steps, data and sizes come from the Trainer of the run itself, around a model without values.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import TrainerState, TrainingArguments
from transformers.trainer_utils import SaveStrategy

from training.arguments import ModelArguments
from training.checkpoints import choose_checkpoint, free_space, megabytes
from training.frozen_weights import is_frozen
from training.trainer import MoraTrainer, n_bytes, n_values

# The first prefix, or part, of a parameter's name that fits.
PARTS = {
    "graph_encoder.": "graph encoder",
    "weight_generator.": "weight generator",
    "projector.": "projector",
    "tuner.": "adapter",
    ".lora_": "adapter",
    "": "base LLM",
}
LAYOUTS = {
    "DDP": "ddp",
    "ZeRO-1": "zero1",
    "ZeRO-2": "zero2",
    "ZeRO-3": "zero3",
    "ZeRO-3, offload": "zero3",
}
SHIPPED_PROCESSES = 8  # as in training/configs/accelerate


def print_plan(
    trainer: MoraTrainer, model_args: ModelArguments, steps: int, steps_per_epoch: int
) -> None:
    """Print the plan of a run.

    Args:
        trainer: of the run; its model may be on the meta device.
        model_args: of the run.
        steps: number of steps of the run.
        steps_per_epoch: number of steps of one pass over the data.
    """
    table = Table(title="Dry run: nothing is trained", title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    checkpoints = count_checkpoints(trainer.args, steps, steps_per_epoch)
    sizes = trainer.checkpoint_sizes()
    rows = run_rows(trainer, model_args, steps) | disk_rows(trainer.args, sizes, checkpoints)
    for name, value in rows.items():
        table.add_row(name, value)
    console = Console(width=110)
    console.print(table)
    console.print(memory_table(trainer, sizes["model"] + sizes["other files"]))


def run_rows(trainer: MoraTrainer, model_args: ModelArguments, steps: int) -> dict[str, str]:
    """Model, data and steps of the plan, by name."""
    args = trainer.args
    trained, total = count_parameters(trainer.model)
    lengths = np.array([len(ids) for ids in trainer.train_dataset["input_ids"]])
    batch = trainer.get_total_train_batch_size(args)
    rates = f"{args.learning_rate:g}"
    if model_args.generator_learning_rate is not None:
        rates += f", of what reads the graph {model_args.generator_learning_rate:g}"
    rows = {
        "method": model_args.method,
        "base": f"{model_args.base} in {trainer.model.dtype}",
        "parameters": f"{sum(trained.values()):,} trained of {sum(total.values()):,}",
    }
    for part in total:
        rows[f"  {part}"] = f"{trained.get(part, 0):,} trained of {total[part]:,}"
    return rows | {
        "examples": f"{len(lengths):,}, validation {len(trainer.eval_dataset or ()):,}",
        "tokens of an example": f"mean {lengths.mean():.1f}, longest {lengths.max():,}",
        "batch": f"{batch:,} examples: {args.per_device_train_batch_size} on each of "
        f"{args.world_size} processes, {args.gradient_accumulation_steps} accumulated",
        "steps": f"{steps:,}, about {steps * batch / len(lengths):.2f} passes over the data",
        "tokens in all": f"about {steps * batch * lengths.mean():,.0f}, without padding",
        "learning rate": f"{rates}; {args.lr_scheduler_type.value}, "
        f"{args.get_warmup_steps(steps):,} steps of warmup",
    }


def disk_rows(args: TrainingArguments, sizes: dict[str, int], written: int) -> dict[str, str]:
    """Checkpoints of the plan, of which so many are written, and the room for them, by name."""
    output_dir = Path(args.output_dir)
    whole, result = sum(sizes.values()), sizes["model"] + sizes["other files"]
    parts = ", ".join(f"{name} {megabytes(size)}" for name, size in sizes.items())
    kept = min(written, args.save_total_limit or written)
    # The oldest goes when the new one is complete.
    needed, free = min(written, kept + 1) * whole + result, free_space(output_dir)
    enough = "" if needed <= free else ": NOT ENOUGH (a lower save_total_limit takes less)"
    rows = {
        "result": f"{megabytes(result)} in {output_dir}",
        "a checkpoint": f"about {megabytes(whole)}: {parts}",
        "checkpoints": f"{written:,} written, {kept:,} kept",
        "disk": f"about {megabytes(needed)} needed at most, {megabytes(free)} free{enough}",
    }
    if args.resume_from_checkpoint is not None:
        rows["goes on from"] = args.resume_from_checkpoint
        if args.resume_from_checkpoint == "true":
            rows["goes on from"] = str(choose_checkpoint(output_dir)[0])
    return rows


def count_parameters(model: torch.nn.Module) -> tuple[dict[str, int], dict[str, int]]:
    """Numbers of trained and of all parameters of each part of a model."""
    trained: dict[str, int] = {}
    total: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = next(PARTS[key] for key in PARTS if name.startswith(key) or key and key in name)
        total[part] = total.get(part, 0) + n_values(parameter)
        if parameter.requires_grad:
            trained[part] = trained.get(part, 0) + n_values(parameter)
    return trained, total


def count_checkpoints(args: TrainingArguments, steps: int, steps_per_epoch: int) -> int:
    """Number of checkpoints that a run of so many steps writes; `best` may write fewer."""
    if args.save_strategy == SaveStrategy.NO:
        return 0
    by_evaluation = args.save_strategy == SaveStrategy.BEST
    strategy = args.eval_strategy if by_evaluation else args.save_strategy
    if strategy == "epoch":
        return math.ceil(steps / steps_per_epoch)
    state = TrainerState()
    state.compute_steps(args, steps)  # these may be given as shares of the steps
    if by_evaluation:
        return steps // state.eval_steps
    return math.ceil(steps / state.save_steps)  # and one at the end


@dataclass(frozen=True)
class Memory:
    """What a configuration needs for weights, gradients and AdamW's state, in bytes.

    Attributes:
        gpu: on each GPU.
        main: main memory of a node with all processes; None where it is only for loading.
    """

    gpu: int
    main: int | None = None


def memory_by_stage(model: torch.nn.Module, processes: int) -> dict[str, Memory | None]:
    """Memory for the stages of DeepSpeed's ZeRO, without activations and communication.

    From ZeRO-2 on, DeepSpeed's estimators say what the trained weights need. They count a model
    all of whose weights are trained, in mixed precision: 2 bytes for a weight and 18 for gradients,
    float32 copy and AdamW's state. The frozen weights, which need nothing but themselves, are added
    in their own format; ZeRO-3 cuts them up as well.

    Args:
        model: may be on the meta device.
        processes: number of GPUs, on one node.

    Returns:
        By stage; None for what DeepSpeed would have to tell, where it is not installed.
    """
    parameters = list(model.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    values, weights = sum(map(n_values, trained)), sum(map(n_bytes, trained))
    frozen = sum(n_bytes(parameter) for parameter in parameters if is_frozen(parameter))
    memory: dict[str, Memory | None] = {
        # Weights and gradients; AdamW's two moments; from ZeRO-1 on a float32 copy of the weights.
        "DDP": Memory(4 * weights + frozen),
        "ZeRO-1": Memory(2 * weights + 12 * values // processes + frozen),
        "ZeRO-2": None,
        "ZeRO-3": None,
        "ZeRO-3, offload": None,
    }
    try:
        from deepspeed.runtime.zero import stage3, stage_1_and_2
    except ImportError:  # it is for Linux alone
        return memory
    size = {"total_params": values, "num_gpus_per_node": processes}
    _, gpu = stage_1_and_2.estimate_zero2_model_states_mem_needs(**size, cpu_offload=False)
    memory["ZeRO-2"] = Memory(gpu + frozen)
    size["largest_layer_params"] = max(
        sum(map(n_values, module.parameters(recurse=False))) for module in model.modules()
    )
    estimate = stage3.estimate_zero3_model_states_mem_needs
    _, gpu, _ = estimate(**size, cpu_offload=False, cpu_offload_params=False)
    memory["ZeRO-3"] = Memory(gpu + frozen // processes)
    main, gpu, _ = estimate(**size)
    memory["ZeRO-3, offload"] = Memory(gpu, main + frozen)
    return memory


def memory_table(trainer: MoraTrainer, result: int) -> Table:
    """The memory of each stage for the processes of this run and for eight, and checkpoints.

    Args:
        trainer: of the run.
        result: bytes of the part of a checkpoint that is the same for all.
    """
    counts = sorted({trainer.args.world_size, SHIPPED_PROCESSES})
    table = Table(
        title="Memory for weights, gradients and AdamW, without activations",
        title_justify="left",
        caption="Activations grow with batch and length, and are not counted. From ZeRO-2 on: "
        "DeepSpeed's estimates for what is trained, plus the frozen LLM.",
        caption_justify="left",
    )
    table.add_column("")
    for count in counts:
        table.add_column(f"each of {count} GPUs" if count > 1 else "1 GPU", justify="right")
    table.add_column("main memory", justify="right")
    table.add_column("checkpoint", justify="right")
    stages = [memory_by_stage(trainer.model, count) for count in counts]
    for name, layout in LAYOUTS.items():
        found = [stage[name] for stage in stages]
        checkpoint = megabytes(result + trainer.state_size(layout))
        if None in found:
            table.add_row(name, *["needs DeepSpeed"] * len(found), "", checkpoint)
        else:
            main = found[-1].main
            gpus = [megabytes(memory.gpu) for memory in found]
            table.add_row(name, *gpus, "" if main is None else megabytes(main), checkpoint)
    return table
