# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""MoRA: molecule-aware low-rank adaptation of frozen language models (arXiv 2510.12245)."""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForCausalLM,
    AutoProcessor,
)
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_mora import PIPELINE_TASK, MoraConfig, MoraGraphConfig
from .feature_extraction_mora import MoleculeFeatureExtractor
from .graph_encoder_mora import MoraGraphEncoder
from .modeling_mora import MoraForCausalLM
from .molecules_mora import MoleculeError
from .pipeline_mora import MoraPipeline
from .pretrained_mora import MoraPreTrainedModel
from .processing_mora import MoraProcessor
from .tuner_mora import MoraTuner
from .weight_generator_mora import MoraWeightGenerator

AutoConfig.register("mora", MoraConfig)
AutoModel.register(MoraConfig, MoraForCausalLM)
AutoModelForCausalLM.register(MoraConfig, MoraForCausalLM)
AutoFeatureExtractor.register(MoraConfig, MoleculeFeatureExtractor)
AutoProcessor.register(MoraConfig, MoraProcessor)
PIPELINE_REGISTRY.register_pipeline(PIPELINE_TASK, MoraPipeline, pt_model=AutoModelForCausalLM)

# Checkpoints carry these files as remote code, so that they load where MoRA is not installed.
MoraConfig.register_for_auto_class()
MoraForCausalLM.register_for_auto_class("AutoModelForCausalLM")
MoleculeFeatureExtractor.register_for_auto_class("AutoFeatureExtractor")
MoraProcessor.register_for_auto_class("AutoProcessor")

__version__ = "0.1.0"

__all__ = [
    "MoleculeError",
    "MoleculeFeatureExtractor",
    "MoraConfig",
    "MoraForCausalLM",
    "MoraGraphConfig",
    "MoraGraphEncoder",
    "MoraPipeline",
    "MoraPreTrainedModel",
    "MoraProcessor",
    "MoraTuner",
    "MoraWeightGenerator",
]
