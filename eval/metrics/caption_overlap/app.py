# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The Space of this metric."""

from pathlib import Path

import evaluate
from evaluate.utils import launch_gradio_widget

launch_gradio_widget(evaluate.load(str(Path(__file__).with_name("caption_overlap.py"))))
