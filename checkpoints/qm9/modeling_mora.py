# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""MoRA for causal language models: a frozen LLM with weights generated from each molecule."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

from .checkpoint_mora import ignore_missing_base_keys
from .configuration_mora import MoraConfig
from .feature_extraction_mora import MoleculeFeatureExtractor
from .graph_encoder_mora import MoraGraphEncoder
from .merging_mora import merged_weights

# Unused here: checkpoints carry the files that this one imports, and the configuration names it.
from .pipeline_mora import MoraPipeline  # noqa: F401
from .pretrained_mora import MoraPreTrainedModel
from .sharding_mora import is_zero3_parameter
from .targets_mora import find_targets
from .tuner_mora import MoraCheckpoint, MoraTuner
from .weight_generator_mora import MoraWeightGenerator

GRAPH_INPUTS = tuple(MoleculeFeatureExtractor.model_input_names)


class MoraForCausalLM(MoraPreTrainedModel, GenerationMixin):
    """A frozen decoder LLM whose layers get low-rank weights generated from each molecule.

    Only the graph encoder, the weight generator and the shared adapter matrices are trained and
    saved; the base model is named in the configuration and loaded from its own place.
    """

    def __init__(self, config: MoraConfig):
        super().__init__(config)
        language_model = AutoModelForCausalLM.from_config(config.text_config)
        targets = find_targets(language_model, config)
        # Before the base, so that device_map="auto" offloads the adapter last.
        self.graph_encoder = MoraGraphEncoder(config.graph_config)
        self.weight_generator = MoraWeightGenerator(config, targets)
        self.tuner = MoraTuner(config, targets)
        self.language_model = language_model
        if not config.includes_base:
            self._keys_to_ignore_on_load_missing = [
                rf"^{name}\." for name in ("graph_encoder", "weight_generator", "tuner")
            ]
        self.register_load_state_dict_post_hook(ignore_missing_base_keys)
        self.post_init()
        self._prepare_adapter()

    def encode_molecules(
        self,
        graph_atoms: torch.Tensor,
        graph_atom_mask: torch.Tensor,
        graph_bonds: torch.Tensor,
        graph_bond_features: torch.Tensor,
        graph_bond_mask: torch.Tensor,
    ) -> torch.Tensor:
        """Generate the weights of a batch of molecules, in float32 whatever the base's dtype.

        Args:
            graph_atoms: [B, N, 9] atom features.
            graph_atom_mask: [B, N], True on real atoms; all False: no molecule in this row.
            graph_bonds: [B, 2, E] atom indices, both directions.
            graph_bond_features: [B, E, 3] bond features.
            graph_bond_mask: [B, E], True on real bonds.

        Returns:
            [B, P] weights, to be given as `mora_weights` to `forward` or `generate`.
        """
        with torch.autocast(device_type=graph_atoms.device.type, enabled=False):
            atoms = self.graph_encoder(
                graph_atoms, graph_atom_mask, graph_bonds, graph_bond_features, graph_bond_mask
            )
            return self.weight_generator(atoms, graph_atom_mask)

    @torch.no_grad()
    def _weights_of_molecules(
        self, molecules: Any, feature_extractor: MoleculeFeatureExtractor | None = None
    ) -> torch.Tensor:
        """[B, P] weights of one or several molecules, without dropout."""
        extract = feature_extractor or MoleculeFeatureExtractor()
        graphs = extract(molecules, return_tensors="pt").to(self.device)
        if not graphs["graph_atom_mask"].any(dim=1).all():
            raise ValueError("None is no molecule: give a SMILES, SELFIES, InChI or Mol.")
        # Only the encoder has dropout and BatchNorm.
        training = self.graph_encoder.training
        self.graph_encoder.eval()
        try:
            return self.encode_molecules(**graphs)
        finally:
            self.graph_encoder.train(training)

    def _weights_for(
        self, graph: dict[str, torch.Tensor | None], mora_weights: torch.Tensor | None
    ) -> torch.Tensor | None:
        """The given weights, or those of the given graphs, or None for the base model alone."""
        given = [name for name, tensor in graph.items() if tensor is not None]
        if given and len(given) < len(graph):
            missing = ", ".join(name for name in graph if name not in given)
            raise ValueError(f"Of the graph tensors, {missing} is missing: give all or none.")
        if self.tuner.state.merged:
            if mora_weights is not None or (given and graph["graph_atom_mask"].any()):
                raise ValueError(
                    "A molecule is merged into the base: inside `merged` give text alone, without "
                    "molecules and mora_weights."
                )
            return None
        if mora_weights is not None or not given or not self.tuner.state.enabled:
            return mora_weights
        return self.encode_molecules(**graph)

    def _check_weights(self, mora_weights: torch.Tensor | None, text: torch.Tensor) -> None:
        if mora_weights is None:
            return
        if len(mora_weights) not in (1, len(text)):
            raise ValueError(
                f"{len(mora_weights)} molecules were given for {len(text)} rows of text: give one "
                "per row (None for a row without a molecule)."
            )
        if mora_weights.shape[1:] != (self.tuner.weights_size,):
            raise ValueError(
                f"mora_weights has shape {list(mora_weights.shape)}, but this model takes [B, "
                f"{self.tuner.weights_size}]: give what its encode_molecules returns."
            )

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        graph_atoms: torch.Tensor | None = None,
        graph_atom_mask: torch.Tensor | None = None,
        graph_bonds: torch.Tensor | None = None,
        graph_bond_features: torch.Tensor | None = None,
        graph_bond_mask: torch.Tensor | None = None,
        mora_weights: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Run the base model with each row's own weights.

        Args:
            input_ids, attention_mask: [B, T] text, as for the base model.
            labels: [B, T]; the base model computes the loss.
            graph_atoms, …: the molecules, see [`encode_molecules`]; without them the base runs.
            mora_weights: [B, P] (or [1, P] for one molecule in all rows) weights from
                [`encode_molecules`], instead of the graphs.
            kwargs: passed on to the base model.
        """
        graph = {
            "graph_atoms": graph_atoms,
            "graph_atom_mask": graph_atom_mask,
            "graph_bonds": graph_bonds,
            "graph_bond_features": graph_bond_features,
            "graph_bond_mask": graph_bond_mask,
        }
        if getattr(self, "_is_replica", False):
            raise RuntimeError(
                "torch.nn.DataParallel shares one model among threads and would mix molecules: "
                "start with torchrun or accelerate launch, or show the process one GPU only."
            )
        if "molecules" in kwargs:
            raise TypeError("The model takes graphs: make them with processor(molecules=…).")
        optional = {"position_ids": position_ids, "past_key_values": past_key_values}
        kwargs.update({name: value for name, value in optional.items() if value is not None})
        # One turn for both, or a molecule merged by another thread would be taken for this one's.
        with self.tuner.state.turn():
            mora_weights = self._weights_for(graph, mora_weights)
            text = input_ids if input_ids is not None else inputs_embeds
            self._check_weights(mora_weights, text)
            if mora_weights is not None:
                mora_weights = mora_weights.to(self.language_model.dtype)
            with self.tuner.state.use(mora_weights):
                return self.language_model(
                    input_ids=input_ids,
                    attention_mask=attention_mask,
                    inputs_embeds=inputs_embeds,
                    labels=labels,
                    **kwargs,
                )

    @torch.no_grad()
    def generate(
        self,
        inputs: torch.Tensor | None = None,
        *args: Any,
        mora_weights: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """`GenerationMixin.generate`, with each row's weights generated once at its start.

        One flat tensor is handed on, which `generate` repeats for beams and return sequences.

        Args:
            inputs: [B, T] `input_ids`, which may also be given by that name.
            args: passed on to `GenerationMixin.generate`.
            mora_weights: [B, P] (or [1, P] for one molecule in all rows) weights from
                [`encode_molecules`], instead of the graphs.
            kwargs: the `graph_…` tensors, the text tensors and all settings of generation.
        """
        graph = {name: kwargs.pop(name, None) for name in GRAPH_INPUTS}
        with self.tuner.state.turn():
            mora_weights = self._weights_for(graph, mora_weights)
        if mora_weights is not None:
            given = (inputs, kwargs.get("input_ids"), kwargs.get("inputs_embeds"))
            text = next((text for text in given if text is not None), mora_weights)
            self._check_weights(mora_weights, text)
            # One molecule for all rows must become one per row before beams repeat the rows.
            kwargs["mora_weights"] = mora_weights.expand(len(text), -1)
        return super().generate(inputs, *args, **kwargs)

    def _get_candidate_generator(self, *args: Any, model_kwargs: dict[str, Any], **kwargs: Any):
        """An assistant model proposes tokens without the molecule, whose weights fit no other."""
        model_kwargs = {k: value for k, value in model_kwargs.items() if k != "mora_weights"}
        return super()._get_candidate_generator(*args, model_kwargs=model_kwargs, **kwargs)

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The base model's own preparation, which passes `mora_weights` through."""
        return self.language_model.prepare_inputs_for_generation(*args, **kwargs)

    def _supports_logits_to_keep(self) -> bool:
        return self.language_model._supports_logits_to_keep()

    @contextmanager
    def merged(
        self, molecule: Any, feature_extractor: MoleculeFeatureExtractor | None = None
    ) -> Iterator["MoraForCausalLM"]:
        """Inside this context one molecule's weights are part of the base model.

        Many questions about one molecule then cost what they cost the base model. Give them as
        text alone; other threads that use the model wait meanwhile. In bfloat16 the merged weights
        are rounded, so that logits differ a little from those outside. Afterwards the base is
        restored bit by bit.

        Args:
            molecule: SMILES, SELFIES, InChI or RDKit `Mol`; or its [1, P] weights from
                [`encode_molecules`].
            feature_extractor: the checkpoint's own; the default settings when not given.

        Raises:
            MoleculeError: the molecule cannot become a graph.
            ValueError: not one molecule is given; a molecule is merged already or the adapter is
                disabled; or the base's weights cannot be changed (`"mlp"` targets, a quantised or
                offloaded base).
        """
        weights = molecule
        if not isinstance(molecule, torch.Tensor):
            weights = self._weights_of_molecules(molecule, feature_extractor)
        if weights.shape != (1, self.tuner.weights_size):
            raise ValueError(
                f"`merged` takes one molecule, [1, {self.tuner.weights_size}] weights, but got "
                f"{list(weights.shape)}."
            )
        # Other threads wait: they would see the molecule in their base model.
        with self.tuner.state.lock:
            if self.tuner.state.merged or not self.tuner.state.enabled:
                raise ValueError(
                    "`merged` works neither inside another `merged` nor inside `disable_adapter`."
                )
            with merged_weights(self.tuner, self.language_model, weights):
                yield self

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Inside this context the model is the base model, bit by bit."""
        if self.tuner.state.merged:
            raise ValueError("A molecule is merged into the base: leave `merged` first.")
        before = self.tuner.state.enabled
        self.tuner.state.enabled = False
        try:
            yield
        finally:
            self.tuner.state.enabled = before

    def print_trainable_parameters(self) -> None:
        """Print how many parameters are trained, in PEFT's form."""
        # What ZeRO-3 has cut up counts as empty in `num_parameters`.
        cut_up = [p for p in self.parameters() if is_zero3_parameter(p)]
        trainable = self.num_parameters(only_trainable=True)
        trainable += sum(p.ds_numel for p in cut_up if p.requires_grad)
        total = self.num_parameters() + sum(p.ds_numel for p in cut_up)
        print(
            f"trainable params: {trainable:,} || all params: {total:,} || "
            f"trainable%: {100 * trainable / total:.4f}"
        )

    def train(self, mode: bool = True) -> "MoraForCausalLM":
        """`nn.Module.train`, but a frozen graph encoder stays in evaluation mode (BatchNorm)."""
        super().train(mode)
        if self.config.freeze_graph_encoder:
            self.graph_encoder.eval()
        return self

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Any = None, **kwargs: Any
    ) -> None:
        checkpoint = gradient_checkpointing_func or torch.utils.checkpoint.checkpoint
        super()._set_gradient_checkpointing(
            enable, MoraCheckpoint(checkpoint, self.tuner.state), **kwargs
        )


__all__ = ["MoraForCausalLM"]
