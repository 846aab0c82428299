# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Predicted numbers, as text or as numbers, against true ones."""

import math
import re
from collections.abc import Mapping, Sequence
from numbers import Real

import numpy as np
from scipy.stats import rankdata

from modeling_mora.numbers_mora import read_number

POLICIES = ("strict", "published")
_LAST_NUMBER = re.compile(r"(?:^|\s)([-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)\s*$")


def score_rows(
    predictions: Sequence[str | float | None],
    references: Sequence[float],
    *,
    policy: str = "strict",
    unit: str = "",
    properties: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """The numbers of each row, of which `aggregate` makes the scores.

    Args:
        predictions: what a model wrote, or its numbers; None stands for no answer.
        references: the true values, in the same unit.
        policy: `"strict"` or `"published"`; the README of this folder defines them.
        unit: the unit that may stand behind a number under `"strict"`, such as `hartree`.
        properties: what was asked for in each row, if it was not the same in all.

    Returns:
        Arrays [n] of float64: `prediction` (nan where none could be read), `reference`, and of
        int64: `property`, a number for each name in `properties`.

    Raises:
        ValueError: no rows, lengths that differ, an unknown policy, a reference that is not a
            finite number, or a prediction that is neither text nor number nor None.
    """
    _check(predictions, references, policy, properties)
    read = _read_last if policy == "published" else lambda text: read_number(text, unit)
    names = [""] * len(references) if properties is None else list(properties)
    return {
        "prediction": np.array(
            [_predicted(value, row, read) for row, value in enumerate(predictions)]
        ),
        "reference": np.array([_true(value, row) for row, value in enumerate(references)]),
        "property": np.unique(names, return_inverse=True)[1],
    }


def aggregate(rows: Mapping[str, np.ndarray]) -> dict[str, float | int | None]:
    """Scores of the rows, or of any resample `{key: value[index] for key, value in rows.items()}`.

    Returns:
        Over the rows whose prediction is a number: `mae` and `rmse` in the unit of the references;
        `r2`, 1 - squared error / squared deviation of the references from their mean; `spearman`,
        the rank correlation. None where they are not defined; `r2` and `spearman` also for rows of
        several properties, where they would measure that the properties differ. `parsed`, the
        share of such rows among the `n`; `n_valid`, their number.
    """
    parsed = ~np.isnan(rows["prediction"])
    predicted, true = rows["prediction"][parsed], rows["reference"][parsed]
    n, n_valid = len(parsed), len(true)
    scores = {"mae": None, "rmse": None, "r2": None, "spearman": None}
    if n_valid:
        error = predicted - true
        scores["mae"] = float(np.abs(error).mean())
        scores["rmse"] = math.sqrt(np.square(error).mean())
        if (rows["property"] == rows["property"][0]).all() and np.ptp(true) > 0:
            deviation = np.square(true - true.mean()).sum()
            scores["r2"] = float(1 - np.square(error).sum() / deviation)
            if np.ptp(predicted) > 0:
                ranks = np.corrcoef(rankdata(predicted), rankdata(true))
                scores["spearman"] = float(ranks[0, 1])
    return scores | {"parsed": n_valid / n, "n": n, "n_valid": n_valid}


def _predicted(value: str | float | None, row: int, read) -> float:
    if isinstance(value, str):
        number = read(value)
        return math.nan if number is None else number
    if value is None:
        return math.nan
    if isinstance(value, Real) and not isinstance(value, bool):
        return float(value) if math.isfinite(value) else math.nan
    raise ValueError(f"predictions, row {row}: {value!r}: pass a text, a number or None.")


def _read_last(text: str) -> float | None:
    """The number that an answer ends in."""
    found = _LAST_NUMBER.search(text)
    number = float(found[1]) if found else math.inf
    return number if math.isfinite(number) else None


def _true(value: float, row: int) -> float:
    if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise ValueError(
        f"references, row {row}: {value!r} is not a finite number: correct it or drop the row."
    )


def _check(
    predictions: Sequence, references: Sequence, policy: str, properties: Sequence | None
) -> None:
    if policy not in POLICIES:
        raise ValueError(f"policy={policy!r}: use one of {', '.join(POLICIES)}.")
    if len(predictions) != len(references):
        raise ValueError(
            f"{len(predictions)} predictions but {len(references)} references: pass one prediction "
            "per row, None where there is none."
        )
    if len(predictions) == 0:
        raise ValueError("There are no rows to score: pass at least one prediction.")
    if properties is not None and len(properties) != len(references):
        raise ValueError(
            f"{len(properties)} properties but {len(references)} references: pass one name per row."
        )
