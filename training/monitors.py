# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""How fast a run learns: tokens and molecules per second, and the share of the GPU that is used."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.flops import Flops, UnknownFlopsError, count_flops, peak_flops


class SpeedMeter(TrainerCallback):
    """Counts what is learned from, and the time that it takes.

    The Trainer's own `include_num_input_tokens_seen` divides by all the time since the start, with
    evaluations and checkpoints, waits for the GPU in every step, and knows no molecules.

    Args:
        model: the model that is trained, before it is wrapped or cut up.
    """

    def __init__(self, model: nn.Module):
        self.peak: float | None = None
        self._flops = Flops()
        self._counts: torch.Tensor | int = 0
        self._start = 0.0
        self._flops_before = 0.0
        self._unknown = ""
        try:
            self._flops = count_flops(model)
        except UnknownFlopsError as error:
            self._unknown = str(error)
        if torch.cuda.is_available():
            device = torch.cuda.get_device_name()
            self.peak = peak_flops(device)
            if self.peak is None and not self._unknown:
                self._unknown = f"{device} is not in the table of training/flops.py"
            if self._unknown:
                self.peak = None

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Start the clock; what a run that is gone on with has done before is not counted."""
        if self._unknown and torch.cuda.is_available() and state.is_world_process_zero:
            print(f"No mfu is shown: {self._unknown}.")
        self._begin(state.total_flos)

    def add(self, inputs: Mapping[str, Any]) -> int:
        """Count a batch of this process that was learned from, and return its FLOPs."""
        tokens = inputs["attention_mask"].sum()
        molecules = torch.zeros_like(tokens)
        if "graph_atom_mask" in inputs:
            molecules = inputs["graph_atom_mask"].any(dim=1).sum()
        # Not as numbers, for which the GPU would have to be waited for.
        self._counts = self._counts + torch.stack([tokens, molecules])
        return self._flops.of(inputs)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time inside this context out."""
        wait_for_device()
        start = time.perf_counter()
        try:
            yield
        finally:
            self._start += time.perf_counter() - start

    def rates(
        self, total_flops: float, processes: int, reduce: Callable[[torch.Tensor], torch.Tensor]
    ) -> dict[str, float]:
        """What was learned from per second since the last call, by all processes together.

        Args:
            total_flops: of the whole run and all processes, as the Trainer sums them up.
            processes: how many processes there are, each with its own GPU.
            reduce: sums a tensor over the processes, all of which take part.

        Returns:
            `tokens_per_second` (of text, without padding); `molecules_per_second` where the model
            reads graphs; `mfu`, the FLOPs that the model needs as a share of what the GPUs could do
            in bfloat16, where both are known.
        """
        wait_for_device()
        seconds = time.perf_counter() - self._start
        tokens, molecules = reduce(self._counts).tolist()
        rates = {"tokens_per_second": tokens / seconds}
        if molecules:
            rates["molecules_per_second"] = molecules / seconds
        if self.peak is not None:
            done = total_flops - self._flops_before
            rates["mfu"] = done / (seconds * self.peak * processes)
        self._begin(total_flops)
        return rates

    def _begin(self, total_flops: float) -> None:
        self._counts = 0
        self._flops_before = total_flops
        self._start = time.perf_counter()


def wait_for_device() -> None:
    """A GPU works on after the program has gone on: wait, so that a time is its time."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
