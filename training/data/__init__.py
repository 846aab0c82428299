# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""From files to checked examples. Every source gives the same columns, one example per row.

All are text: `task` (a key of `TASKS`), `prompt` and `answer` (what user and assistant say),
`molecule` (canonical SMILES of what becomes the graph, or None), `id` (what the source calls the
row), `source`, and `property` (the property or label that is asked for, or None).
"""
