# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Cards and folders for the Hub; runs from a checkout, as `python -m hub_cards.release`."""
