# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The answers that plots are drawn from, each scored by the code of the metric modules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from rdkit import Chem, rdBase

from eval.metric_names import CONTROLS
from eval.metrics.caption_overlap.overlap import score_rows as score_overlap
from eval.metrics.fingerprint_similarity.similarity import score_rows as score_similarity
from eval.metrics.molecule_match.matching import score_rows as score_match
from eval.metrics.property_regression.regression import score_rows as score_regression
from eval.metrics.property_roc_auc.roc_auc import score_rows as score_classes
from eval.report_tables import Section, run_name
from modeling_mora.tasks_mora import get_task


@dataclass(frozen=True)
class Answers:
    """What one model answered to one question, under one control.

    Attributes:
        name: of the model, or of the control, for a legend.
        control: None for the model as it is, or a key of `CONTROLS`.
        task: key of `eval.metric_names.TASKS`.
        policy: how answers are counted.
        notation: `smiles` or `selfies`.
        units: property -> unit of its values; empty where they have none.
        rows: records of `predictions.jsonl`.
        tokenizer: of caption scores, else None.
    """

    name: str
    control: str | None
    task: str
    policy: str
    notation: str
    units: Mapping[str | None, str]
    rows: Sequence[Mapping[str, Any]]
    tokenizer: str | None = None

    @property
    def properties(self) -> list[str | None]:
        """What was asked for, in the order of the rows."""
        return list(dict.fromkeys(row["property"] for row in self.rows))

    def of(self, property: str | None) -> "Answers":
        """The answers about one property."""
        return replace(self, rows=[row for row in self.rows if row["property"] == property])

    @cached_property
    def heavy_atoms(self) -> np.ndarray:
        """Heavy atoms of each row's graph, [n]; nan where there is no molecule."""
        return np.array([count_heavy_atoms(row["molecule"]) for row in self.rows])

    @cached_property
    def _texts(self) -> tuple[list[str], list[str]]:
        texts = [row["text"] for row in self.rows]
        return texts, [row["reference"] for row in self.rows]

    @cached_property
    def exact_match(self) -> np.ndarray:
        """1 where the answer is the true molecule, else 0, [n]."""
        rows = score_match(*self._texts, policy=self.policy, notation=self.notation)
        return np.asarray(rows["exact_match"], dtype=float)

    @cached_property
    def similarity(self) -> np.ndarray:
        """Morgan Tanimoto of answer and truth, [n]; nan where the answer is no molecule."""
        rows = score_similarity(*self._texts, policy=self.policy, notation=self.notation)
        return np.asarray(rows["morgan"], dtype=float)

    @cached_property
    def overlap(self) -> np.ndarray:
        """METEOR of answer and truth, [n], for answers in words."""
        rows = score_overlap(*self._texts, policy=self.policy, tokenizer=self.tokenizer)
        return np.asarray(rows["meteor"], dtype=float)

    @cached_property
    def truths(self) -> np.ndarray:
        """True values, [n]."""
        return np.array([float(row["reference"]) for row in self.rows])

    @cached_property
    def values(self) -> np.ndarray:
        """Predicted values, [n]; nan where no number can be read.

        A text that was cut off may end in half a number, so it is not read.
        """
        texts = [row["text"] if row["finished"] else None for row in self.rows]
        asked = [row["property"] for row in self.rows]
        values = np.full(len(texts), np.nan)
        for property in self.properties:
            rows = [i for i, name in enumerate(asked) if name == property]
            scored = score_regression(
                [texts[row] for row in rows],
                self.truths[rows].tolist(),
                policy=self.policy,
                unit=self.units.get(property, ""),
            )
            values[rows] = scored["prediction"]
        return values

    @cached_property
    def errors(self) -> np.ndarray:
        """Absolute errors, [n]; nan where no number can be read."""
        return np.abs(self.values - self.truths)

    @cached_property
    def labels(self) -> np.ndarray:
        """1 for a true yes, 0 for a true no, [n]; nan where the truth is neither."""
        return self._classes["reference"]

    @cached_property
    def probabilities(self) -> np.ndarray:
        """The model's probability of yes, [n], as the policy takes it; nan without a truth."""
        return self._classes["score"]

    @cached_property
    def _classes(self) -> dict[str, np.ndarray]:
        parse = get_task(self.task).parse
        truths = [parse(row["reference"]) for row in self.rows]
        return score_classes(
            [row.get("p_yes") for row in self.rows],
            [None if truth is None else int(truth) for truth in truths],
            policy=self.policy,
        )


def section_answers(section: Section) -> list[Answers]:
    """The answers of each run of a section; of a single run, those of its controls too."""
    found = []
    for run in section.runs:
        scores = section.scores(run)
        units = {score.property: score.unit or "" for score in scores}
        controls = {score.control for score in scores} - {"training_mean"}
        if len(section.runs) > 1:
            controls &= {None}
        for control in (None, *CONTROLS):
            if control not in controls:
                continue
            name = run_name(run) if control is None else CONTROLS[control]
            rows = run.rows(section.task, section.source, control)
            found.append(
                Answers(
                    name,
                    control,
                    section.task,
                    section.policy,
                    section.notation,
                    units,
                    rows,
                    section.tokenizer,
                )
            )
    return found


@lru_cache(maxsize=100_000)
def count_heavy_atoms(smiles: str | None) -> float:
    """Heavy atoms of a molecule; nan for none and for one that cannot be read."""
    if smiles is None:
        return np.nan
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
    return np.nan if molecule is None else float(molecule.GetNumHeavyAtoms())
