# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Scores of numeric answers: mean absolute error and the share of answers that are numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import mean_absolute_error

# CODATA 2018: one hartree in electronvolts.
HARTREE_IN_EV = 27.211386245988


@dataclass(frozen=True)
class RegressionScore:
    """How well one arm did on one property, under the strict policy.

    Attributes:
        n: number of rows asked.
        n_parsed: number of rows whose answer could be read as a number.
        mae: mean absolute error over the parsed rows, in the unit of the targets (hartree for
            QM9); None when no row parsed. Rows that did not parse are never imputed.
    """

    n: int
    n_parsed: int
    mae: float | None

    @property
    def parsed_share(self) -> float:
        """Share of the rows whose answer could be read, between 0 and 1."""
        return self.n_parsed / self.n

    @property
    def mae_ev(self) -> float | None:
        """Mean absolute error in electronvolts, for targets in hartree."""
        return None if self.mae is None else self.mae * HARTREE_IN_EV


def score_regression(
    targets: Sequence[float], predictions: Sequence[float | None]
) -> RegressionScore:
    """Score one arm's answers to one property.

    Args:
        targets: true values, one per row.
        predictions: predicted values aligned with `targets`; None where no number could be read.

    Raises:
        ValueError: if there are no rows, or the two lengths differ.
    """
    if len(targets) != len(predictions):
        raise ValueError(
            f"{len(targets)} targets but {len(predictions)} predictions: pass one prediction per "
            "row, None where the answer could not be read"
        )
    if not targets:
        raise ValueError("nothing to score: there are no rows")

    parsed = [(t, p) for t, p in zip(targets, predictions, strict=True) if p is not None]
    mae = None
    if parsed:
        true, predicted = np.transpose(parsed)
        mae = float(mean_absolute_error(true, predicted))
    return RegressionScore(n=len(targets), n_parsed=len(parsed), mae=mae)


def mean_baseline(training_targets: Sequence[float], n: int) -> list[float]:
    """Predict the mean of the training targets for each of `n` rows.

    The mean is the training split's, never the test split's: the baseline may know only what the
    model could have learned.

    Raises:
        ValueError: if there are no training targets.
    """
    if not training_targets:
        raise ValueError("cannot predict the mean: there are no training targets")
    return [float(np.mean(training_targets))] * n
