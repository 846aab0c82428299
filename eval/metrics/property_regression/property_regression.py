# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""`evaluate` metric: errors of predicted numbers, and the share of answers that are numbers."""

import datasets
import evaluate
import numpy as np

from .regression import aggregate, score_rows

_DESCRIPTION = (
    "MAE, RMSE, R2 and Spearman correlation of numbers read from answers, and the share of answers "
    "that hold one readable number."
)
_INPUTS = """
Args:
    predictions: what a model wrote, or its numbers; None stands for no answer.
    references: the true values.
    policy: "strict" (one readable number) or "published" (the number an answer ends in).
    unit: the unit of the references, which may stand behind a predicted number.
    properties: what was asked for in each row, if it was not the same in all.
Returns:
    mae, rmse, r2, spearman (None where not defined), parsed, n, n_valid, policy, unit; with
    properties also per_property, the same scores by name.
"""
_CITATION = """\
@inproceedings{fang2024molinstructions,
  title={Mol-Instructions: A Large-Scale Biomolecular Instruction Dataset for Large Language
         Models},
  author={Fang, Yin and Liang, Xiaozhuan and Zhang, Ningyu and Liu, Kangwei and Huang, Rui and
          Chen, Zhuo and Fan, Xiaohui and Chen, Huajun},
  booktitle={ICLR},
  year={2024}
}
"""


class PropertyRegression(evaluate.Metric):
    """Thin shell around `regression`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    # Numbers become text in it. evaluate refuses a None at the start of a column
                    # of "string", not of "large_string".
                    "predictions": datasets.Value("large_string"),
                    "references": datasets.Value("float64"),
                }
            ),
        )

    def _compute(self, predictions, references, policy="strict", unit="", properties=None):
        rows = score_rows(predictions, references, policy=policy, unit=unit, properties=properties)
        scores = aggregate(rows) | {"policy": policy, "unit": unit}
        if properties is not None:
            names = np.array(properties)
            scores["per_property"] = {
                name: aggregate({key: value[names == name] for key, value in rows.items()})
                for name in dict.fromkeys(properties)
            }
        return scores
