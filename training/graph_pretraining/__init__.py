# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Pretraining of the graph encoder on molecules alone, see `training/pretrain_graph.py`."""
