# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Fine-tune MoRA on questions about molecules with the standard `transformers` Trainer.

    python -m training.finetune training/recipes/qm9_quickstart.yaml --max_steps 10
    accelerate launch -m training.finetune training/recipes/qm9_quickstart.yaml

Every key of a recipe is also a flag; `--help` lists them all. The model, its processor and
`data.json` (which data it was trained on, for `python -m eval.benchmark`) end up in `output_dir`.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from modeling_mora import MoleculeFeatureExtractor, MoraForCausalLM, MoraProcessor
from training.arguments import (
    DataArguments,
    ModelArguments,
    check_base,
    parse_arguments,
)
from training.base_model import resolve_base
from training.collator import MoraCollator
from training.data.qm9 import load_qm9
from training.tokenization import tokenize_dataset


def main(arguments: list[str] | None = None) -> None:
    """Run `training.finetune` with these command-line arguments (the process's own if None)."""
    try:
        model_args, data_args, training_args = parse_arguments(
            sys.argv[1:] if arguments is None else arguments
        )
        model_args.base = resolve_base(model_args.base)
        check_base(model_args.base)
    except (ValueError, OSError) as error:
        sys.exit(f"training.finetune: error: {error}")
    finetune(model_args, data_args, training_args)


def finetune(
    model_args: ModelArguments, data_args: DataArguments, training_args: TrainingArguments
) -> Trainer:
    """Fine-tune MoRA and save it to `training_args.output_dir`.

    Args:
        model_args: `base` is a folder or a Hub id here, no longer the short name `smollm2`.
        data_args: the questions to learn from.
        training_args: the Trainer's own settings.

    Returns:
        The Trainer, after training.
    """
    processor = MoraProcessor(
        feature_extractor=MoleculeFeatureExtractor(),
        tokenizer=AutoTokenizer.from_pretrained(model_args.base),
    )
    dataset = load_qm9(**data_args.qm9_settings())
    train_dataset, validation_dataset = (
        tokenize_dataset(dataset[split], processor.tokenizer, data_args.max_length)
        for split in ("train", "validation")
    )

    set_seed(training_args.seed)  # the Trainer sets it too, but the fresh weights are drawn here
    model = MoraForCausalLM.from_base(
        model_args.base, dtype=model_args.base_dtype, **model_args.mora_settings()
    )
    model.print_trainable_parameters()

    # The Trainer would drop `molecule`, which is no argument of the model's forward.
    training_args.remove_unused_columns = False
    training_args.dataloader_pin_memory &= torch.accelerator.is_available()
    trainer = Trainer(
        model=model,
        args=training_args,
        data_collator=MoraCollator(processor),
        train_dataset=train_dataset,
        eval_dataset=validation_dataset if len(validation_dataset) > 0 else None,
        processing_class=processor,
        callbacks=[SaveDataSettings(data_args)],
        optimizer_cls_and_kwargs=optimizer_with_two_rates(
            model, training_args, model_args.generator_learning_rate
        ),
    )
    resume = training_args.resume_from_checkpoint
    trainer.train(resume_from_checkpoint=True if resume == "true" else resume)

    # Before save_model, which uploads the whole folder when push_to_hub is set.
    if trainer.is_world_process_zero():
        write_data_settings(data_args, Path(training_args.output_dir))
    trainer.save_model()
    trainer.save_state()
    if trainer.is_world_process_zero():
        print(f"Saved the model and its processor to {training_args.output_dir}")
    return trainer


def optimizer_with_two_rates(
    model: torch.nn.Module,
    training_args: TrainingArguments,
    generator_learning_rate: float | None,
) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """The optimizer that `training_args` asks for, with a second rate for generator and encoder.

    The Trainer still builds the optimizer itself, so schedules and resuming work as ever. Weight
    decay is for matrices; biases and norm scales have none.

    Args:
        model: a `MoraForCausalLM`.
        training_args: its `learning_rate` is for `tuner.*`, the adapter.
        generator_learning_rate: for `weight_generator.*` and `graph_encoder.*`; None for the same.

    Returns:
        Optimizer class and keyword arguments, as the Trainer's `optimizer_cls_and_kwargs`.
    """
    adapter_rate = training_args.learning_rate
    generator_rate = adapter_rate if generator_learning_rate is None else generator_learning_rate
    groups = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = adapter_rate if name.startswith("tuner.") else generator_rate
            decay = training_args.weight_decay if parameter.ndim > 1 else 0.0
            key = (name.startswith("tuner."), parameter.ndim > 1)
            group = groups.setdefault(key, {"params": [], "lr": rate, "weight_decay": decay})
            group["params"].append(parameter)
    optimizer_class, options = Trainer.get_optimizer_cls_and_kwargs(training_args, model)
    return optimizer_class, {**options, "params": list(groups.values())}


class SaveDataSettings(TrainerCallback):
    """Puts `data.json` into every checkpoint, so that each can be scored on its own test split."""

    def __init__(self, data_args: DataArguments):
        self.data_args = data_args

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called by the Trainer after it has saved a checkpoint."""
        if state.is_world_process_zero:
            checkpoint = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            write_data_settings(self.data_args, checkpoint)


def write_data_settings(data_args: DataArguments, folder: Path) -> None:
    """Write `data.json`, the keyword arguments of `load_qm9`, into `folder`."""
    text = json.dumps(data_args.qm9_settings(), indent=2) + "\n"
    (folder / "data.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
