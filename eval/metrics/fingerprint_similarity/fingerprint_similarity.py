# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""`evaluate` metric: how alike predicted and true molecules are."""

import datasets
import evaluate

from .similarity import aggregate, score_rows

_DESCRIPTION = (
    "Mean Tanimoto similarity of predicted and true molecules by MACCS keys, RDKit's topological "
    "fingerprint and Morgan counts, over valid rows and with invalid rows as zero."
)
_INPUTS = """
Args:
    predictions: what a model wrote, one text per row; None stands for nothing.
    references: the true molecule of each row, several joined by dots.
    policy: "strict" (every row counts) or "published" (the definitions of published scripts).
    notation: how both are spelled, "smiles" or "selfies".
Returns:
    maccs, rdk, morgan (valid rows; None where there are none), maccs_invalid_zero,
    rdk_invalid_zero, morgan_invalid_zero, n, n_valid, policy, notation.
"""
_CITATION = """\
@misc{rdkit,
  title={RDKit: Open-source cheminformatics},
  author={Landrum, Greg and others},
  howpublished={https://www.rdkit.org}
}
"""


class FingerprintSimilarity(evaluate.Metric):
    """Thin shell around `similarity`."""

    def _info(self) -> evaluate.MetricInfo:
        # evaluate refuses a None at the start of a column of "string", not of "large_string".
        text = datasets.Value("large_string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions, references, policy="strict", notation="smiles"):
        rows = score_rows(predictions, references, policy=policy, notation=notation)
        return aggregate(rows) | {"policy": policy, "notation": notation}
