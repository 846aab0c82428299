# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""What `training.finetune` can train: MoRA and the methods it is compared with."""
