# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Shares of rows with an interval."""

import numpy as np
from scipy.stats import binomtest


def wilson(successes: int, n: int) -> tuple[float, float, float]:
    """A share with its 95 % Wilson interval, which is right for few rows and at 0 and 1 too.

    Returns:
        share, low, high; all nan for n = 0.
    """
    if n == 0:
        return (np.nan,) * 3
    interval = binomtest(successes, n).proportion_ci(method="wilson")
    return successes / n, interval.low, interval.high
