# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""`evaluate` metric: area under the ROC curve of predicted probabilities."""

import datasets
import evaluate
import numpy as np

from .roc_auc import aggregate, score_rows

_DESCRIPTION = (
    "Area under the ROC curve from the probability of the answer Yes, by label, with gaps in the "
    "truth, as MoleculeNet's classification tasks are judged."
)
_INPUTS = """
Args:
    predictions: probability that the answer is yes, 0 to 1.
    references: 1 for yes, 0 for no, None for a gap.
    policy: "strict" (probabilities) or "published" (the words Yes and No that they stand for).
    labels: what was asked for in each row, if it was not the same in all.
Returns:
    roc_auc (mean over the labels; None where it is not defined), n, n_valid, policy; with labels
    also per_label, the same scores by name.
"""
_CITATION = """\
@article{wu2018moleculenet,
  title={MoleculeNet: a benchmark for molecular machine learning},
  author={Wu, Zhenqin and Ramsundar, Bharath and Feinberg, Evan N. and Gomes, Joseph and
          Geniesse, Caleb and Pappu, Aneesh S. and Leswing, Karl and Pande, Vijay},
  journal={Chemical Science},
  volume={9},
  pages={513--530},
  year={2018}
}
"""


class PropertyRocAuc(evaluate.Metric):
    """Thin shell around `roc_auc`."""

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": number, "references": number}),
        )

    def _compute(self, predictions, references, policy="strict", labels=None):
        rows = score_rows(predictions, references, policy=policy, labels=labels)
        scores = aggregate(rows) | {"policy": policy}
        if labels is not None:
            names = np.array(labels)
            scores["per_label"] = {
                name: aggregate({key: value[names == name] for key, value in rows.items()})
                for name in dict.fromkeys(labels)
            }
        return scores
