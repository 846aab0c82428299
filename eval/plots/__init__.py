# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Plots of a report, one idea a file; each is drawn on given axes and can be tested there."""
