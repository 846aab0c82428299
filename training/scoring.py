# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Answers to a few validation questions at each evaluation, and how good they are.

The loss says how likely the right answer is; this says what the model really writes. It is a look
at the run, on few rows: `eval.benchmark` is what scores a model.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from modeling_mora import MoraProcessor
from modeling_mora.chat_mora import end_token_ids, read_answer
from modeling_mora.reaction_tasks_mora import MoleculeAnswer
from modeling_mora.tasks_mora import PropertyClassification, PropertyPrediction, Task

FILE = "scored_answers.jsonl"
# Tokens beyond the longest right answer: what needs more is not the answer that was asked for.
ANSWER_MARGIN = 8
EXAMPLES = 2  # shown on the screen


class NoSuchScoreError(ValueError):
    """The rows that are scored do not give the score that was asked for."""


class AnswerScorer:
    """Answers the same validation questions each time, greedily, and scores them.

    Args:
        rows: of `choose_rows`, with the columns named in `training.data`.
        processor: the model's processor, whose tasks read the answers.
        graphs: whether the model takes the molecules' graphs.
        batch_size: questions per batch and process.
        folder: `scored_answers.jsonl` is written there.

    Attributes:
        metrics: the names of the scores, with `eval_` in front.
    """

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        processor: MoraProcessor,
        graphs: bool,
        batch_size: int,
        folder: Path,
    ):
        self.rows = [dict(row) for row in rows]
        self.processor = processor
        self.graphs = graphs
        self.batch_size = batch_size
        self.path = folder / FILE
        tokenized = processor.tokenizer([row["answer"] for row in self.rows])["input_ids"]
        self.max_new_tokens = max(map(len, tokenized)) + ANSWER_MARGIN
        right = [row | {"read": self._read(row, row["answer"])} for row in self.rows]
        self.metrics = list(score_answers(right, processor))

    def score(
        self, model: PreTrainedModel, step: int, accelerator: Accelerator
    ) -> dict[str, float]:
        """Answer, keep the answers, show some, and score them all; all processes take part.

        Args:
            model: the model itself, not what wraps it. Its mode is left as it was.
            step: of the training.
            accelerator: which of the processes this one is, and with what precision it computes.

        Returns:
            The scores by name, the same in all processes; see `score_answers`.
        """
        batches = range(0, len(self.rows), self.batch_size)
        mine = batches[accelerator.process_index :: accelerator.num_processes]
        was_training = model.training
        model.eval()
        try:
            with accelerator.autocast():
                answered = [row for start in mine for row in self._answer(model, start)]
        finally:
            model.train(was_training)
        answered = sorted(gather_object(answered), key=lambda row: row["row"])
        if accelerator.is_main_process:
            keep_answers(self.path, step, answered)
            for row in answered[:EXAMPLES]:
                tqdm.write(f"  {row['prompt']!r} → {row['text']!r}, right: {row['answer']!r}")
        return score_answers(answered, self.processor)

    def _answer(self, model: PreTrainedModel, start: int) -> list[dict[str, Any]]:
        """Answer one batch, greedily."""
        rows = self.rows[start : start + self.batch_size]
        tokenizer = self.processor.tokenizer
        # As in training, see `tokenize_example`.
        inputs = tokenizer.apply_chat_template(
            [[{"role": "user", "content": row["prompt"]}] for row in rows],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            padding=True,
            return_tensors="pt",
        )
        if self.graphs:
            molecules = [row["molecule"] for row in rows]
            inputs.update(self.processor.feature_extractor(molecules, return_tensors="pt"))
        end_ids = end_token_ids(model, tokenizer)
        tokens = model.generate(
            **inputs.to(model.device),
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            num_beams=1,
            # Some base models ship a repetition penalty, which would punish repeated digits.
            repetition_penalty=1.0,
            use_cache=True,  # off in the configuration under activation checkpointing
            eos_token_id=end_ids,
            pad_token_id=tokenizer.pad_token_id,
        )[:, inputs["input_ids"].shape[1] :]
        ended = torch.isin(tokens, torch.tensor(end_ids, device=tokens.device)).any(dim=1).tolist()
        texts = [read_answer(tokenizer, row).strip() for row in tokens]
        return [
            row
            | {
                "row": start + number,
                "text": text,
                # One that was cut off, perhaps in the middle of a number, is not read.
                "read": self._read(row, text) if finished else None,
            }
            for number, (row, text, finished) in enumerate(zip(rows, texts, ended, strict=True))
        ]

    def _read(self, row: Mapping[str, Any], text: str) -> Any:
        return self.processor.task(row["task"]).parse(text, row["property"])


def choose_rows(dataset: Dataset, number: int) -> list[dict[str, Any]]:
    """The first rows, as many of one task as of another while there are any.

    Args:
        dataset: the columns named in `training.data`.
        number: of rows; all where there are fewer.
    """
    seen: Counter = Counter()
    turns = []
    for position, task in enumerate(dataset["task"]):
        turns.append((seen[task], position))
        seen[task] += 1
    return [dataset[position] for position in sorted(p for _, p in sorted(turns)[:number])]


def score_answers(
    answered: Sequence[Mapping[str, Any]], processor: MoraProcessor
) -> dict[str, float]:
    """Score answers plainly, each by the kind of its task.

    Args:
        answered: rows of the data with `read`, the answer as the task reads it; None: it cannot.
        processor: its tasks read the right answers.

    Returns:
        `eval_read`, the share of answers that could be read; and of the following those that the
        tasks have. `eval_mae`: mean absolute error over the numbers that could be read, infinite
        if none could; where properties have different units, `eval_mae_PROPERTY` of each.
        `eval_exact_match`: share of molecules that are right (canonical isomeric SMILES, components
        in any order). `eval_accuracy`: share of right yes and no. `eval_same_text`: share of texts
        that are right to the letter. What cannot be read is wrong in the last three.
    """
    units = {
        processor.task(row["task"]).properties[row["property"]].unit
        for row in answered
        if isinstance(processor.task(row["task"]), PropertyPrediction)
    }
    values: dict[str, list[float]] = {}
    for row in answered:
        task = processor.task(row["task"])
        right, read = task.parse(row["answer"], row["property"]), row["read"]
        if isinstance(task, PropertyPrediction):
            name = "mae" if len(units) == 1 else f"mae_{row['property']}"
            errors = values.setdefault(name, [])
            if read is not None:
                errors.append(abs(read - right))
            continue
        values.setdefault(_name_of_share(task), []).append(float(read == right))
    scores = {f"eval_{name}": mean(part or [math.inf]) for name, part in values.items()}
    return scores | {"eval_read": mean(float(row["read"] is not None) for row in answered)}


def _name_of_share(task: Task) -> str:
    """What the share of right answers is called, where answers are right or wrong."""
    if isinstance(task, MoleculeAnswer):
        return "exact_match"
    return "accuracy" if isinstance(task, PropertyClassification) else "same_text"


def possible_scores(tasks: Iterable[Task]) -> list[str]:
    """Names of all scores that some questions of these tasks may get, see `score_answers`."""
    names = {"eval_read"}
    units = {}
    for task in tasks:
        if isinstance(task, PropertyPrediction):
            names.add("eval_mae")
            units |= {name: property_.unit for name, property_ in task.properties.items()}
        else:
            names.add(f"eval_{_name_of_share(task)}")
    if len(set(units.values())) > 1:  # which of them are asked for is not known
        names |= {f"eval_mae_{name}" for name in units}
    return sorted(names)


def keep_answers(path: Path, step: int, answered: Sequence[Mapping[str, Any]]) -> None:
    """Append the answers of a step to a JSON-lines file.

    What a run has written after the checkpoint that it was gone on from is taken out again.
    """
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = [line for line in lines if json.loads(line)["step"] < step]
    names = ("row", "task", "property", "prompt", "molecule", "answer", "text", "read")
    new = [{"step": step} | {name: row[name] for name in names} for row in answered]
    kept += [json.dumps(row, ensure_ascii=False) for row in new]
    # Whole or not at all, so that a killed run leaves no half line.
    unfinished = path.with_name(f"{path.name}.tmp")
    unfinished.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    os.replace(unfinished, path)
