# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The standard Trainer, with checkpoints that are whole and hold nothing that is not trained.

transformers leaves frozen weights out of the files of DeepSpeed and FSDP for PEFT's models alone,
and writes a checkpoint under its final name from the first byte on.
"""

import json
import logging
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import save_fsdp_optimizer
from accelerate.utils.constants import FSDP_MODEL_NAME
from safetensors import SafetensorError
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.utils.data import Dataset, Sampler
from transformers import Trainer
from transformers.integrations.deepspeed import deepspeed_load_checkpoint
from transformers.trainer import SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import (
    PREFIX_CHECKPOINT_DIR,
    EvalLoopOutput,
    SaveStrategy,
    rotate_checkpoints,
)

from modeling_mora.sharding_mora import whole_tensor
from training.checkpoints import (
    UNFINISHED,
    check_room,
    disk_full,
    find_checkpoints,
    finish_checkpoint,
    folder_size,
    is_disk_full,
    remove_unfinished,
    state_size,
)
from training.frozen_weights import is_frozen, leave_out_frozen
from training.guards import FiniteGuard, check_batches, check_number_format, check_schedule
from training.length_sampler import RepeatableLengthSampler
from training.monitors import SpeedMeter
from training.scoring import AnswerScorer
from training.weight_probe import make_probe

logger = logging.getLogger(__name__)
# Its buffers, and its weights if they are frozen, are saved with what is trained.
ENCODER = "graph_encoder."


class MoraTrainer(Trainer):
    """The Trainer for all methods of `training.finetune`.

    A model with `whole_state_dict`, such as `MoraForCausalLM`, says itself what a checkpoint holds,
    and puts it together where ZeRO-3 or FSDP2 has cut it up.

    Args:
        data_settings: the content of `data.json`, which says in every checkpoint what the model was
            trained on.
        scorer: answers and scores some questions in each evaluation, with weights that are whole
            in each process, so not under ZeRO-3 and FSDP2.
        args, kwargs: those of the Trainer.

    Raises:
        ValueError: bf16 or fp16 where it would not leave the weight generator in float32; FSDP1.
    """

    def __init__(
        self,
        *args: Any,
        data_settings: dict[str, Any],
        scorer: AnswerScorer | None = None,
        **kwargs: Any,
    ):
        self.data_settings = data_settings
        self.scorer = scorer
        self._is_saving = False
        # Hopper GPUs take it for `sdpa` since torch 2.11, and with a mask it gives NaN gradients to
        # batches that are as long as 64 modulo 128 (pytorch/pytorch#196678).
        torch.backends.cuda.enable_cudnn_sdp(False)
        super().__init__(*args, **kwargs)
        self.speed = SpeedMeter(self.model)
        self.add_callback(self.speed)
        self._last_rate = 0.0
        self._knows_its_state = hasattr(self.model, "whole_state_dict")
        self._has_frozen = any(is_frozen(parameter) for parameter in self.model.parameters())
        self.guard = FiniteGuard(getattr(self.processing_class, "tokenizer", None))
        datasets = [data for data in (self.eval_dataset, self.train_dataset) if data is not None]
        self.probe = make_probe(self.model, datasets, self.processing_class)
        casts_all = self.is_deepspeed_enabled or self.is_fsdp_enabled
        if self._knows_its_state and casts_all and (self.args.bf16 or self.args.fp16):
            raise ValueError(
                "With DeepSpeed or FSDP, bf16 and fp16 would turn the weight generator, too, into "
                "16 bit. Leave them off and give `base_dtype: bfloat16`, which is for the frozen "
                "LLM alone."
            )
        if self.is_fsdp_enabled and not self.accelerator.is_fsdp2:
            raise ValueError(
                "fsdp_version=1 joins frozen and trained weights: set fsdp_version: 2, as in "
                "training/configs/accelerate/fsdp2.yaml."
            )

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        sampler = super()._get_train_sampler(train_dataset)
        if not isinstance(sampler, LengthGroupedSampler):
            return sampler
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return RepeatableLengthSampler(sampler.batch_size, list(sampler.lengths), seed)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Count a batch that was learned from; the Trainer's own takes all weights for trained."""
        return self.speed.add(inputs)

    def _get_learning_rate(self) -> float:
        # Here, before the schedule goes on to the next step.
        self._last_rate = self.optimizer.param_groups[-1]["lr"]
        return super()._get_learning_rate()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log; beside a training loss the second learning rate, speed and the weights' probe."""
        if "loss" in logs:
            if self._last_rate != logs["learning_rate"]:
                logs["generator_learning_rate"] = self._last_rate
            logs |= self.speed.rates(
                self.state.total_flos, self.args.world_size, self.accelerator.reduce
            )
            if self.probe is not None:
                logs |= self._probe_weights()
        super().log(logs, start_time)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate, which does not count as time of training."""
        with self.speed.paused():
            return super().evaluate(*args, **kwargs)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """The Trainer's own, and the scores of some answers beside the loss."""
        output = super().evaluation_loop(*args, **kwargs)
        if self.scorer is not None and kwargs.get("metric_key_prefix") == "eval":
            scores = self.scorer.score(self.model, self.state.global_step, self.accelerator)
            output.metrics.update(scores)
        return output

    def _prepare_for_training(
        self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None
    ) -> tuple[Any, Any]:
        if self.args.should_save and self.args.save_strategy != SaveStrategy.NO:
            remove_unfinished(Path(self.args.output_dir))
        self.check_start(max_steps)
        if not self.is_deepspeed_enabled:
            return super()._prepare_for_training(
                max_steps, train_dataloader, resume_from_checkpoint
            )
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
        leave_out_frozen(self.model_wrapped)
        if resume_from_checkpoint is not None:
            deepspeed_load_checkpoint(self.model_wrapped, resume_from_checkpoint)
            self._load_optimizer_and_scheduler(resume_from_checkpoint)
            self._load_scaler(resume_from_checkpoint)
        return prepared

    def set_initial_training_values(self, args: Any, dataloader: Any) -> tuple:
        """The Trainer's numbers of steps and examples, where there is a batch."""
        check_batches(args, len(dataloader))
        return super().set_initial_training_values(args, dataloader)

    def check_start(self, steps: int) -> None:
        """The checks of a run of so many steps before the first; nothing is written or deleted.

        Raises:
            GuardError: it would learn nothing.
            DiskFullError: no room for the next checkpoint.
        """
        dtypes = {parameter.dtype for parameter in self.model.parameters()}
        for warning in (
            check_schedule(self.args, steps),
            check_number_format(self.args.device, dtypes),
        ):
            if warning is not None and self.is_world_process_zero():
                logger.warning(warning)
        if self.args.should_save and self.args.save_strategy != SaveStrategy.NO:
            check_room(Path(self.args.output_dir), self._checkpoint_size(), "the next checkpoint")

    def _move_model_to_device(self, model: torch.nn.Module, device: torch.device) -> None:
        if not next(model.parameters()).is_meta:  # as in a dry run
            super()._move_model_to_device(model, device)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        **kwargs: Any,
    ) -> Any:
        """The Trainer's loss; in training, `FiniteGuard` takes note of it."""
        if return_outputs:
            return super().compute_loss(model, inputs, return_outputs=True, **kwargs)
        loss = super().compute_loss(model, inputs, **kwargs)
        return self.guard.watch(loss, inputs, self.state.global_step)

    def _clip_grad_norm(self, model: torch.nn.Module) -> Any:
        """The Trainer's clipping in two parts, as it turns all gradients into NaN if one is."""
        if self.is_deepspeed_enabled:
            return super()._clip_grad_norm(model)
        self.accelerator.unscale_gradients()
        parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
        norm = get_total_norm([parameter.grad for parameter in parameters])
        self._stop_unless_finite(norm, model.named_parameters())
        limit = self.args.max_grad_norm if self.args.max_grad_norm > 0 else math.inf
        clip_grads_with_norm_(parameters, limit, norm)
        return norm

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        if not self.is_deepspeed_enabled:
            return self._clip_grad_norm(model) if grad_norm is None else grad_norm
        # DeepSpeed has taken the step by now, or left it out where the norm is not finite.
        norm = super()._get_grad_norm(model, grad_norm)
        if norm is not None:
            self._stop_unless_finite(norm)
        return norm

    def _stop_unless_finite(self, norm: Any, parameters: Any = ()) -> None:
        norm = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
        if math.isfinite(norm):
            return
        if self.is_deepspeed_enabled and self.model_wrapped.fp16_enabled():
            return  # It lowers its scale, and stops by itself when it cannot.
        scaler = self.accelerator.scaler
        if scaler is not None and scaler.get_scale() >= 1:
            return  # Too high a scale is found so. It leaves the step out and halves the scale.
        number_format = f"weights of the LLM in {self.model.dtype}, mixed precision: "
        number_format += self.accelerator.mixed_precision
        raise self.guard.error(norm, parameters, self._learning_rates(), number_format)

    def _learning_rates(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def _probe_weights(self) -> dict[str, float]:
        """What `WeightProbe` measures; its warnings are given after the warmup."""
        with self.speed.paused():
            values = self.probe.measure()
        if self.state.global_step > self.args.get_warmup_steps(self.state.max_steps):
            rates = self._learning_rates()
            for warning in self.probe.warnings(values, self.state.global_step, rates):
                if self.is_world_process_zero():
                    logger.warning(warning)
        return values

    def _checkpoint_size(self) -> int:
        """Bytes of the next checkpoint: as the last one, or as planned."""
        complete, _ = find_checkpoints(Path(self.args.output_dir))
        if complete:
            return folder_size(complete[-1])
        return sum(self.checkpoint_sizes().values())

    def checkpoint_sizes(self) -> dict[str, int]:
        """Bytes of a checkpoint's parts: `model`, `other files` and `state` of the training."""
        saved = {  # tied weights have two names
            tensor: n_bytes(tensor)
            for name, tensor in self.model.state_dict(keep_vars=True).items()
            if tensor.requires_grad or name.startswith(ENCODER)
        }
        with tempfile.TemporaryDirectory() as folder:
            self._save(folder, state_dict={})
            sizes = {"model": sum(saved.values()), "other files": folder_size(Path(folder))}
        return sizes | {"state": self.state_size(self._layout())}

    def state_size(self, layout: str) -> int:
        """Bytes of what a checkpoint holds beside the model to go on from, see `state_size`."""
        if self.args.save_only_model:
            return 0
        trained = [p for p in self.model.parameters() if p.requires_grad]
        return state_size(sum(map(n_values, trained)), sum(map(n_bytes, trained)), layout)

    def _layout(self) -> str:
        if self.is_deepspeed_enabled:
            return f"zero{self.accelerator.state.deepspeed_plugin.zero_stage}"
        return "fsdp2" if self.is_fsdp_enabled else "ddp"

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        with self.speed.paused():
            self._save_whole_checkpoint(model, trial)

    def _save_whole_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        run_dir = Path(self._get_output_dir(trial))
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        unfinished, finished = run_dir / UNFINISHED / name, run_dir / name
        needed = self._checkpoint_size()
        if self.args.should_save:
            remove_unfinished(run_dir)
            check_room(run_dir, needed, name)
        self.accelerator.wait_for_everyone()
        self._is_saving = True
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:
            if not is_disk_full(error, run_dir):
                raise
            remove_unfinished(run_dir)
            raise disk_full(run_dir, needed, name) from error
        finally:
            self._is_saving = False
        if self.state.best_model_checkpoint == str(unfinished):
            self.state.best_model_checkpoint = str(finished)
            if self.args.should_save:
                self.state.save_to_json(str(unfinished / TRAINER_STATE_NAME))
        self.accelerator.wait_for_everyone()  # all have written their parts
        if self.args.should_save:
            finish_checkpoint(unfinished)
        self.accelerator.wait_for_everyone()
        # What `super` has done in `_unfinished`, to no effect.
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(finished))
        if self.args.should_save:
            rotate_checkpoints(
                output_dir=str(run_dir),
                save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=True,
            )

    def _get_output_dir(self, trial: Any) -> str:
        run_dir = super()._get_output_dir(trial)
        return os.path.join(run_dir, UNFINISHED) if self._is_saving else run_dir

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if not self._is_saving:
            super()._push_from_checkpoint(checkpoint_folder)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model, so that `from_pretrained` loads it, with its processor and `data.json`.

        All processes take part. The frozen LLM is neither saved nor put together for it.
        """
        if not (self._knows_its_state and (self.is_deepspeed_enabled or self.is_fsdp_enabled)):
            super().save_model(output_dir, _internal_call)
            return
        self._save(output_dir, state_dict=self.model.whole_state_dict())
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            write_data_settings(self.data_settings, Path(output_dir or self.args.output_dir))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not (self.is_fsdp_enabled and self._has_frozen):
            super()._save_optimizer_and_scheduler(output_dir)
            return
        # In place of `save_fsdp_model`, which saves the frozen weights as well.
        state = self.model.state_dict(keep_vars=True).items()
        trained = {name: whole_tensor(t) for name, t in state if not is_frozen(t)}
        plugin = self.accelerator.state.fsdp_plugin
        save_fsdp_optimizer(plugin, self.accelerator, self.optimizer, self.model, output_dir)
        if self.args.should_save:
            torch.save(trained, os.path.join(output_dir, f"{FSDP_MODEL_NAME}.bin"))
            torch.save(self.lr_scheduler.state_dict(), os.path.join(output_dir, SCHEDULER_NAME))

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: torch.nn.Module | None = None
    ) -> None:
        if not (self.is_fsdp_enabled and self._has_frozen):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        path = os.path.join(resume_from_checkpoint, f"{FSDP_MODEL_NAME}.bin")
        trained = torch.load(path, map_location="cpu", weights_only=True)
        options = StateDictOptions(full_state_dict=True, strict=False)
        set_model_state_dict(self.model, trained, options=options)

    def _load_best_model(self) -> None:
        if self.is_fsdp_enabled and self._has_frozen:
            self._load_from_checkpoint(self.state.best_model_checkpoint)
        else:
            super()._load_best_model()


def n_values(tensor: torch.Tensor) -> int:
    """Numbers in a tensor; of a parameter that ZeRO-3 has cut up, of all its parts."""
    return getattr(tensor, "ds_numel", tensor.numel())


def n_bytes(tensor: torch.Tensor) -> int:
    """Size of a tensor, see `n_values`."""
    return n_values(tensor) * tensor.element_size()


def write_data_settings(settings: dict[str, Any], folder: Path) -> None:
    """Write `data.json`, which says what the model was trained on, into `folder`."""
    (folder / "data.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
