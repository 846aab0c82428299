# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""`evaluate` metric: do predicted molecules match the true ones."""

import datasets
import evaluate

from .matching import aggregate, score_rows

_DESCRIPTION = (
    "Exact match (also without stereo and by InChI), Levenshtein distance, character BLEU and "
    "validity of predicted molecules, in SMILES or SELFIES."
)
_INPUTS = """
Args:
    predictions: what a model wrote, one text per row; None stands for nothing.
    references: the true molecule of each row, several joined by dots.
    policy: "strict" (every row counts) or "published" (the definitions of published scripts).
    notation: how both are spelled, "smiles" or "selfies".
Returns:
    exact_match, exact_match_no_stereo, exact_match_inchi, levenshtein, levenshtein_canonical,
    bleu, validity, n, n_valid, policy, notation. A score that no row takes part in is None.
"""
_CITATION = """\
@inproceedings{edwards2022translation,
  title={Translation between Molecules and Natural Language},
  author={Edwards, Carl and Lai, Tuan and Ros, Kevin and Honke, Garrett and Cho, Kyunghyun and
          Ji, Heng},
  booktitle={EMNLP},
  year={2022}
}
"""


class MoleculeMatch(evaluate.Metric):
    """Thin shell around `matching`."""

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
