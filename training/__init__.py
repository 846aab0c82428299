# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning MoRA with the standard `transformers` Trainer.

Run from a checkout: `python -m training.finetune training/recipes/qm9_quickstart.yaml`.
"""
