# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""`evaluate` modules, one folder each, which can be uploaded as Spaces as they stand."""
