# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The Space: a table to fill in, and its scores."""

from pathlib import Path

import evaluate
from evaluate.utils import launch_gradio_widget

launch_gradio_widget(evaluate.load(str(Path(__file__).with_name("molecule_match.py"))))
