# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Ask all questions of a run, on one process or several, and keep each answer as it comes."""

from collections.abc import Iterator, Mapping, Sequence

from accelerate import PartialState
from tqdm.auto import tqdm
from transformers import PreTrainedModel, ProcessorMixin

from eval.generation import answer_batch, sort_into_batches
from eval.predictions import PredictionFolder
from modeling_mora.median_mora import NumberTokens

# Their probabilities are kept as `p_yes`.
CHOICES = {"property_classification": ("Yes", "No")}


def ask(
    questions: Sequence[Mapping],
    predictions: PredictionFolder,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    max_new_tokens: Mapping[str, int],
    batch_size: int,
    state: PartialState,
    numbers: str = "greedy",
) -> None:
    """Ask what has no answer yet.

    Which rows share a batch depends on the questions alone, and a batch that is not answered whole
    is asked again as a whole. So a run ends with the same answers, to the last bit, however often
    it was stopped.

    Args:
        questions: from `make_questions`, of one control or several.
        predictions: where the answers are kept.
        model: the model, on this process's device.
        processor: its processor.
        max_new_tokens: longest answer in tokens, by task.
        batch_size: rows per batch.
        state: which of the processes this one is.
        numbers: `greedy`, or `median` for answers to `property_prediction` by [`MedianNumber`].
    """
    number_tokens = NumberTokens.of(processor.tokenizer) if numbers == "median" else None
    batches = list(make_batches(questions, processor, batch_size))
    missing = [
        batch
        for batch in batches
        if any((q["control"], q["row"]) not in predictions.answered for q in batch)
    ]
    # All must have read what there is before one of them writes more.
    state.wait_for_everyone()
    asked = sum(map(len, missing))
    with tqdm(
        total=len(questions),
        initial=len(questions) - asked,
        desc="answering",
        unit="row",
        smoothing=0,
        disable=not state.is_main_process,
    ) as progress:
        for number, batch in enumerate(missing):
            if number % state.num_processes == state.process_index:
                task = batch[0]["task"]
                answers = answer_batch(
                    model,
                    processor,
                    [question["prompt"] for question in batch],
                    [question["graph"] for question in batch],
                    max_new_tokens[task],
                    use_adapter=batch[0]["control"] != "base_model",
                    choices=CHOICES.get(task),
                    number_tokens=number_tokens if task == "property_prediction" else None,
                )
                records = []
                for question, answer in zip(batch, answers, strict=True):
                    record = {**question, "text": answer.text, "finished": answer.finished}
                    if answer.probability is not None:
                        record["p_yes"] = answer.probability
                    records.append(record)
                predictions.append(records)
            # The others go at about the same pace.
            progress.update(len(batch))
    state.wait_for_everyone()


def make_batches(
    questions: Sequence[Mapping], processor: ProcessorMixin, batch_size: int
) -> Iterator[list[Mapping]]:
    """Batches of one control and one task each, see `sort_into_batches`."""
    kinds: dict[tuple, list[Mapping]] = {}
    for question in questions:
        kinds.setdefault((question["control"], question["task"]), []).append(question)
    for alike in kinds.values():
        prompts = [question["prompt"] for question in alike]
        for batch in sort_into_batches(processor, prompts, batch_size):
            yield [alike[position] for position in batch]
