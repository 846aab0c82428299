# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Sources of examples. Every source yields the same columns, one example per row:

`task, prompt, answer, molecule, id, source, property`. `prompt` is the text of the user turn,
`answer` that of the assistant turn, `molecule` what the graph is made of (or None).
"""
