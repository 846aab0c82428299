# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""A language model without graphs, behind the interface of a MoRA model."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from modeling_mora.checkpoint_mora import load_base_config


class TextOnlyModel(nn.Module):
    """A model with static LoRA, or a fully fine-tuned one, that is asked like a MoRA model.

    Graphs, which the processor makes for every method, are left out of its inputs.

    Args:
        text_model: a `PeftModel`; or a model whose configuration names the base that it was.
    """

    def __init__(self, text_model: PeftModel | PreTrainedModel):
        super().__init__()
        self.text_model = text_model
        self.config = text_model.config

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's own `forward`."""
        return self.text_model(*args, **without_graphs(kwargs))

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """The model's own `generate`."""
        return self.text_model.generate(*args, **without_graphs(kwargs))

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Inside this context the model is its base.

        Full fine-tuning has changed all weights, so the base is loaded for it, and kept from then
        on: it takes the memory of a second model.

        Raises:
            OSError: the base is no longer where its name says.
        """
        if isinstance(self.text_model, PeftModel):
            with self.text_model.disable_adapter():
                yield
            return
        trained = self.text_model
        self.text_model = self._base
        try:
            yield
        finally:
            self.text_model = trained

    @cached_property
    def _base(self) -> PreTrainedModel:
        # Cached past nn.Module, which would count a submodule among this model's weights.
        name, revision = self.config.base_model_name_or_path, self.config.base_revision
        load_base_config(name, revision)
        # Inference mode would make weights that can be used nowhere else.
        with torch.inference_mode(False):
            base = AutoModelForCausalLM.from_pretrained(name, revision=revision or "main")
            return base.to(self.device).eval()

    @property
    def generation_config(self) -> GenerationConfig:
        """The language model's settings of generation."""
        return self.text_model.generation_config

    @property
    def device(self) -> torch.device:
        """Where its inputs go."""
        return self.text_model.device


def without_graphs(inputs: dict[str, Any]) -> dict[str, Any]:
    """Inputs of a model, without the molecules' graphs."""
    return {name: value for name, value in inputs.items() if not name.startswith("graph_")}
