# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""What a run shows of itself: a bar on a terminal, and a line each time something is logged."""

import re
import time
from collections.abc import Mapping
from typing import Any

from tqdm.auto import tqdm
from transformers import ProgressCallback, TrainerControl, TrainerState, TrainingArguments

# How a value is called and written; what is not here is shown by its own name with four digits.
SHOWN = {
    "loss": ("loss", "{:.4f}"),
    "eval_loss": ("validation loss", "{:.4f}"),
    "train_loss": ("mean loss", "{:.4f}"),
    "learning_rate": ("lr", "{:.1e}"),
    "generator_learning_rate": ("generator lr", "{:.1e}"),
    "grad_norm": ("grad norm", "{:.3g}"),
    "tokens_per_second": ("tokens/s", "{:,.0f}"),
    "molecules_per_second": ("molecules/s", "{:,.1f}"),
    "mfu": ("MFU", "{:.1%}"),
    "eval_read": ("read", "{:.0%}"),
    "eval_exact_match": ("exact match", "{:.1%}"),
    "eval_accuracy": ("accuracy", "{:.1%}"),
    "eval_same_text": ("same text", "{:.1%}"),
}
LEFT_OUT = re.compile(r"epoch|total_flos|(train|eval)_.+_per_second")


class ReadableProgress(ProgressCallback):
    """The Trainer's bar with the last loss and scores in it, and lines instead of dicts.

    Where the output is no terminal, there is no bar, and the lines say how much time is left.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the bar, where the run starts or goes on."""
        self.current_step = self.first_step = state.global_step
        self.start = time.monotonic()
        self.last: dict[str, str] = {}
        if state.is_world_process_zero:
            self.training_bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                dynamic_ncols=True,
                disable=True if args.disable_tqdm else None,  # None: only on a terminal
            )

    def on_prediction_step(self, *args: Any, **kwargs: Any) -> None:
        """Show the bar of an evaluation, too, on a terminal alone."""
        if self.training_bar is not None and not self.training_bar.disable:
            super().on_prediction_step(*args, **kwargs)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the line, and the scores behind the bar."""
        if not state.is_world_process_zero or not logs:
            return
        tqdm.write(log_line(state, logs, self._seconds_left(state)))
        if self.training_bar is not None:
            self.last |= {
                key: show(key, value)
                for key, value in logs.items()
                if key == "loss" or is_score(key)
            }
            self.training_bar.set_postfix_str("  ".join(self.last.values()))

    def _seconds_left(self, state: TrainerState) -> float | None:
        """At the pace since this start of the run, evaluations and checkpoints included."""
        steps = state.global_step - self.first_step
        if self.training_bar is None or steps == 0:
            return None
        return (time.monotonic() - self.start) / steps * (state.max_steps - state.global_step)


def log_line(state: TrainerState, logs: Mapping[str, Any], seconds_left: float | None) -> str:
    """One line about what was logged.

    Args:
        state: says the step.
        logs: the values by name, as the Trainer logs them.
        seconds_left: until the last step; None where it is not known.
    """
    parts = [f"step {state.global_step}/{state.max_steps}"]
    parts += [show(key, value) for key, value in logs.items() if not LEFT_OUT.fullmatch(key)]
    if seconds_left is not None and "loss" in logs:
        parts.append(f"{format_time(seconds_left)} left")
    return "  ".join(parts)


def is_score(key: str) -> bool:
    """Whether a logged value says how good the model is on validation rows."""
    return key.startswith("eval_") and key != "eval_runtime" and not LEFT_OUT.fullmatch(key)


def show(key: str, value: Any) -> str:
    """A logged value with its name, such as `loss 1.2345`."""
    if key.endswith("_runtime"):
        return f"took {format_time(value)}"
    name, form = SHOWN.get(key, (key.removeprefix("eval_"), "{:.4g}"))
    return f"{name} {form.format(value) if isinstance(value, (int, float)) else value}"


def format_time(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
