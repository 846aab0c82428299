# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Fine-tune MoRA on questions about molecules with the standard `transformers` Trainer.

    python -m training.finetune training/recipes/qm9_quickstart.yaml --max_steps 10
    accelerate launch -m training.finetune training/recipes/qm9_quickstart.yaml
    python -m training.finetune training/recipes/qm9_quickstart.yaml --method lora

Every key of a recipe is also a flag; `--help` lists them all. The model, its processor and
`data.json` (which data it was trained on, for `python -m eval.benchmark`) end up in `output_dir`.
"""

import gc
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import DatasetDict
from transformers import (
    AutoTokenizer,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.trainer_pt_utils import get_model_param_count

from modeling_mora import MoleculeFeatureExtractor, MoraProcessor
from training.argument_checks import check_base
from training.arguments import DataArguments, ModelArguments, parse_arguments
from training.checkpoints import DiskFullError, choose_checkpoint
from training.collator import MoraCollator
from training.data.prepared import load_prepared
from training.data.qm9 import load_qm9, qm9_properties
from training.graph_encoder import load_graph_encoder
from training.guards import GuardError
from training.hidden_strings import hide_strings
from training.methods.models import READS_GRAPHS, make_model, outline_model
from training.plan import print_plan
from training.progress import ReadableProgress
from training.scoring import AnswerScorer, NoSuchScoreError, choose_rows
from training.tokenization import tokenize_dataset
from training.trainer import MoraTrainer
from training.training_curves import draw_training_curves

DEFAULT_MAX_LENGTH = 256
# From graph to weights in MoRA, and to embeddings in the graph prefix.
GRAPH_MODULES = ("graph_encoder.", "weight_generator.", "projector.")


def main(arguments: list[str] | None = None) -> None:
    """Run `training.finetune` with these command-line arguments (the process's own if None)."""
    try:
        model_args, data_args, training_args = parse_arguments(
            sys.argv[1:] if arguments is None else arguments
        )
        check_base(model_args.base)
    except (ValueError, OSError) as error:
        sys.exit(f"training.finetune: error: {error}")
    try:
        run = dry_run if model_args.dry_run else finetune
        trainer = run(model_args, data_args, training_args)
    except (DiskFullError, GuardError, NoSuchScoreError) as error:
        sys.exit(f"training.finetune: error: {error}")
    # A process that ends while the others still talk to it may be aborted.
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()
    # So may one whose process groups, which hang on the model, are left to Python's own end: their
    # threads want the interpreter then.
    del trainer
    gc.collect()


def finetune(
    model_args: ModelArguments, data_args: DataArguments, training_args: TrainingArguments
) -> Trainer:
    """Fine-tune by one method and save the model to `training_args.output_dir`.

    Args:
        model_args: the method, the base LLM and the settings of the model.
        data_args: the questions to learn from.
        training_args: the Trainer's own settings.

    Returns:
        The Trainer, after training.
    """
    trainer = make_trainer(model_args, data_args, training_args)
    trainer.pop_callback(PrinterCallback if training_args.disable_tqdm else ProgressCallback)
    trainer.add_callback(ReadableProgress())
    resume = training_args.resume_from_checkpoint
    if resume == "true":
        resume, message = choose_checkpoint(Path(training_args.output_dir))
        if trainer.is_world_process_zero():
            print(message)
    try:
        trainer.train(resume_from_checkpoint=resume and str(resume))
    finally:  # also of a run that a guard or Ctrl-C has stopped
        if trainer.is_world_process_zero():
            draw_training_curves(trainer.state.log_history, Path(training_args.output_dir))
    trainer.save_model()
    trainer.save_state()
    if trainer.is_world_process_zero():
        print(f"Saved the model and its processor to {training_args.output_dir}")
    return trainer


def dry_run(
    model_args: ModelArguments, data_args: DataArguments, training_args: TrainingArguments
) -> Trainer:
    """Print what `finetune` would do, with all its checks; see there for the arguments.

    Raises:
        GuardError, DiskFullError, …: what `finetune` raises before its first step.
    """
    output_dir = training_args.output_dir
    training_args.push_to_hub = False
    unset_hf_deepspeed_config()  # ZeRO-3 would cut up the model, which has no values
    with tempfile.TemporaryDirectory() as folder:  # the Trainer makes the folder
        training_args.output_dir = folder
        trainer = make_trainer(model_args, data_args, training_args)
    training_args.output_dir = output_dir
    dataloader = trainer.get_train_dataloader()
    _, steps_per_epoch, *_, steps = trainer.set_initial_training_values(training_args, dataloader)
    if trainer.is_world_process_zero():
        print_plan(trainer, model_args, steps, steps_per_epoch)
    trainer.check_start(steps)
    return trainer


def make_trainer(
    model_args: ModelArguments, data_args: DataArguments, training_args: TrainingArguments
) -> MoraTrainer:
    """The Trainer with its model and data, ready to train; see `finetune` for the arguments.

    With `dry_run` the model has no values.
    """
    graph_encoder = None
    if model_args.graph_encoder is not None:  # first, as the file may be corrupt
        graph_encoder = load_graph_encoder(model_args.graph_encoder)
    data = load_data(data_args)
    tokenizer = AutoTokenizer.from_pretrained(model_args.base_path)
    tokenizer.chat_template = model_args.chat_template or tokenizer.chat_template
    processor = MoraProcessor(
        feature_extractor=MoleculeFeatureExtractor(max_atoms=data.max_atoms),
        tokenizer=tokenizer,
        tasks=data.tasks,
    )
    scorer = make_scorer(model_args, data_args, training_args, data, processor)
    if data_args.hide_string > 0:
        data.splits["train"] = hide_strings(
            data.splits["train"], data_args.hide_string, training_args.seed, processor.task
        )
    train_dataset, validation_dataset = (
        tokenize_dataset(
            data.splits[split],
            processor.tokenizer,
            data.max_length,
            data_args.preprocessing_num_workers,
        )
        if split in data.splits
        else []
        for split in ("train", "validation")
    )

    set_seed(training_args.seed)  # the Trainer sets it too, but the fresh weights are drawn here
    make = outline_model if model_args.dry_run else make_model
    model = make(model_args, graph_encoder)
    print(
        f"method={model_args.method}: {get_model_param_count(model, trainable_only=True):,} of "
        f"{get_model_param_count(model):,} parameters are trained."
    )

    # The Trainer would drop `molecule`, which is no argument of the model's forward.
    training_args.remove_unused_columns = False
    training_args.dataloader_pin_memory &= torch.accelerator.is_available()
    return MoraTrainer(
        model=model,
        args=training_args,
        data_collator=MoraCollator(processor, graphs=model_args.method in READS_GRAPHS),
        train_dataset=train_dataset,
        eval_dataset=validation_dataset if len(validation_dataset) > 0 else None,
        processing_class=processor,
        data_settings=data.settings,
        scorer=scorer,
        optimizer_cls_and_kwargs=optimizer_with_two_rates(
            model, training_args, model_args.generator_learning_rate
        ),
    )


def make_scorer(
    model_args: ModelArguments,
    data_args: DataArguments,
    training_args: TrainingArguments,
    data: "TrainingData",
    processor: MoraProcessor,
) -> AnswerScorer | None:
    """What answers and scores `score_rows` of the validation questions.

    Raises:
        NoSuchScoreError: `metric_for_best_model` is a score of their tasks, but not of these rows.
    """
    if data_args.score_rows == 0:
        return None
    scorer = AnswerScorer(
        choose_rows(data.splits["validation"], data_args.score_rows),
        processor,
        graphs=model_args.method in READS_GRAPHS,
        batch_size=training_args.per_device_eval_batch_size,
        folder=Path(training_args.output_dir),
    )
    best = training_args.metric_for_best_model
    known = ["eval_loss", *scorer.metrics]
    if best is not None and f"eval_{best.removeprefix('eval_')}" not in known:
        raise NoSuchScoreError(
            f"metric_for_best_model={best}: the {len(scorer.rows)} validation rows that are scored "
            f"have {', '.join(known)}. Use one of them, or more score_rows."
        )
    return scorer


@dataclass(frozen=True)
class TrainingData:
    """What a run learns from.

    Attributes:
        splits: `train` and, if there is one, `validation`.
        settings: the content of `data.json`: the keyword arguments of `load_qm9`, or `prepared`,
            the folder, and `fingerprints` of its splits.
        tasks: see `MoraProcessor`.
        max_length: longest example in tokens.
        max_atoms: see `MoleculeFeatureExtractor`.
    """

    splits: DatasetDict
    settings: dict[str, Any]
    tasks: dict[str, dict[str, Any]]
    max_length: int
    max_atoms: int


def load_data(data_args: DataArguments) -> TrainingData:
    """Open the prepared data that the arguments name, or make the questions about QM9.

    Raises:
        ValueError: the folder is not as `training.prepare` left it.
    """
    if data_args.prepared is None:
        settings = data_args.qm9_settings()
        return TrainingData(
            load_qm9(**settings),
            settings,
            tasks={"property_prediction": {"properties": qm9_properties(data_args.properties)}},
            max_length=data_args.max_length or DEFAULT_MAX_LENGTH,
            max_atoms=MoleculeFeatureExtractor().max_atoms,
        )
    prepared = load_prepared(data_args.prepared)
    settings = {
        "prepared": str(prepared.path.resolve()),
        "fingerprints": prepared.info["fingerprints"],
    }
    return TrainingData(
        prepared.splits,
        settings,
        tasks=prepared.tasks,
        max_length=data_args.max_length or prepared.info["settings"]["max_length"],
        max_atoms=prepared.info["settings"]["max_atoms"],
    )


def optimizer_with_two_rates(
    model: torch.nn.Module,
    training_args: TrainingArguments,
    generator_learning_rate: float | None,
) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """The optimizer that `training_args` asks for, with a second rate for what reads the graph.

    The Trainer still builds the optimizer itself, so schedules and resuming work as ever. Weight
    decay is for matrices; biases and norm scales have none.

    Args:
        model: a model of any method.
        training_args: its `learning_rate` is for the adapter, or all weights where there is none.
        generator_learning_rate: for the modules of `GRAPH_MODULES`; None for the same.

    Returns:
        Optimizer class and keyword arguments, as the Trainer's `optimizer_cls_and_kwargs`.
    """
    adapter_rate = training_args.learning_rate
    generator_rate = adapter_rate if generator_learning_rate is None else generator_learning_rate
    groups = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            reads_graph = name.startswith(GRAPH_MODULES)
            rate = generator_rate if reads_graph else adapter_rate
            # ZeRO-3 leaves an empty tensor in place of the parameter.
            is_matrix = len(getattr(parameter, "ds_shape", parameter.shape)) > 1
            decay = training_args.weight_decay if is_matrix else 0.0
            key = (reads_graph, is_matrix)
            group = groups.setdefault(key, {"params": [], "lr": rate, "weight_decay": decay})
            group["params"].append(parameter)
    optimizer_class, options = Trainer.get_optimizer_cls_and_kwargs(training_args, model)
    # The adapter first, as the Trainer logs the rate of the first group.
    ordered = [groups[key] for key in sorted(groups)]
    return optimizer_class, {**options, "params": ordered}


if __name__ == "__main__":
    main()
