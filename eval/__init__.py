# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Scoring of MoRA models: benchmark runner, metrics, parity plot, and single predictions."""
