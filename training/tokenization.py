# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""A question and its answer as token ids, with the loss on the answer alone."""

from typing import Any

from datasets import Dataset

from modeling_mora.chat_mora import around_answer, first_special_token, read_answer

IGNORE_INDEX = -100  # what torch's cross entropy leaves out


class ExampleTooLongError(ValueError):
    """An example has more tokens than `max_length`."""


class AnswerError(ValueError):
    """An answer that this tokenizer or its chat template cannot give back as it is."""


def tokenize_dataset(
    dataset: Dataset, tokenizer: Any, max_length: int, num_proc: int = 1
) -> Dataset:
    """Tokenise every row; rows longer than `max_length` are left out and counted on the screen.

    Args:
        dataset: columns `prompt` (str), `answer` (str) and `molecule` (str or None).
        tokenizer: a tokenizer with a chat template.
        max_length: longest example allowed, in tokens.
        num_proc: processes.

    Returns:
        Columns `input_ids`, `labels` and `molecule`, as `MoraCollator` takes them, and `length`, by
        which the Trainer groups rows with `train_sampling_strategy="group_by_length"`.

    Raises:
        ValueError: not a single row fits into `max_length`, or see `tokenize_example`.
    """

    def tokenize_batch(batch: dict[str, list]) -> dict[str, list]:
        columns = {"input_ids": [], "labels": [], "molecule": [], "length": []}
        for prompt, answer, molecule in zip(
            batch["prompt"], batch["answer"], batch["molecule"], strict=True
        ):
            try:
                example = tokenize_example(prompt, answer, tokenizer, max_length)
            except ExampleTooLongError:
                continue
            columns["input_ids"].append(example["input_ids"])
            columns["labels"].append(example["labels"])
            columns["molecule"].append(molecule)
            columns["length"].append(len(example["input_ids"]))
        return columns

    tokenized = dataset.map(
        tokenize_batch,
        batched=True,
        remove_columns=dataset.column_names,
        num_proc=num_proc if num_proc > 1 else None,
        desc="Tokenizing",
    )
    if len(dataset) > 0 and len(tokenized) == 0:
        # One of them again, for its own message with the number of tokens it needs.
        tokenize_example(dataset[0]["prompt"], dataset[0]["answer"], tokenizer, max_length)
    if len(tokenized) < len(dataset):
        print(
            f"{len(dataset) - len(tokenized)} of {len(dataset)} examples are longer than "
            f"max_length={max_length} tokens and are left out."
        )
    return tokenized


def tokenize_example(
    prompt: str, answer: str, tokenizer: Any, max_length: int
) -> dict[str, list[int]]:
    """Token ids of one user turn and its answer.

    The tokens of the generation prompt, then those of the answer alone, then the token that the
    chat template ends the assistant's turn with. What a template writes between them, such as the
    blanks of Llama 2 or the empty thoughts of Qwen3, is left out: generation starts from the prompt
    as it is, and what the model writes is read as the answer.

    Args:
        prompt: text of the user turn.
        answer: text of the assistant turn.
        tokenizer: a tokenizer with a chat template.
        max_length: longest example allowed, in tokens; nothing is ever cut.

    Returns:
        `input_ids` and `labels` of the same length. `labels` is -100 on the prompt; the answer and
        the token that ends the turn carry the loss.

    Raises:
        ExampleTooLongError: prompt and answer take more than `max_length` tokens.
        AnswerError: the answer is empty, the chat template changes it, or the tokenizer does not
            give it back.
        ValueError: the chat template is missing or does not end an answer.
    """
    if tokenizer.chat_template is None:
        raise ValueError(
            f"The tokenizer {tokenizer.name_or_path!r} has no chat template. Take an instruct "
            "model as base, or set tokenizer.chat_template."
        )
    if not answer.strip():
        raise AnswerError(f"The answer {answer!r} is empty: nothing to learn for {prompt!r}.")
    user_turn = [{"role": "user", "content": prompt}]
    prompt_ids = tokenizer.apply_chat_template(
        user_turn, add_generation_prompt=True, tokenize=True, return_dict=True
    )["input_ids"]
    end_id = check_template(prompt, answer, tokenizer)
    # Apart from the prompt, so that no token of the prompt merges with the answer.
    answer_ids = tokenizer(answer, add_special_tokens=False)["input_ids"] + [end_id]
    read = read_answer(tokenizer, answer_ids)
    if read != answer:
        raise AnswerError(
            f"The tokenizer {tokenizer.name_or_path!r} reads the answer {answer!r} back as "
            f"{read!r}. It may normalise blanks or Unicode, lack a character, or the answer "
            "contains the text of a special token: change the answer."
        )

    length = len(prompt_ids) + len(answer_ids)
    if length > max_length:
        raise ExampleTooLongError(
            f"max_length={max_length}, but an example takes {length} tokens ({len(prompt_ids)} "
            f"prompt, {len(answer_ids)} answer), and examples are never cut. Raise max_length. "
            f"The prompt: {prompt!r}"
        )
    return {
        "input_ids": prompt_ids + answer_ids,
        "labels": [IGNORE_INDEX] * len(prompt_ids) + answer_ids,
    }


def check_template(prompt: str, answer: str, tokenizer: Any) -> int:
    """Check that the chat template writes the answer as it is, and return its end-of-turn token.

    Raises:
        AnswerError: the template changes the answer.
        ValueError: the template leaves the answer out, or does not close the assistant's turn with
            a special token, so that the model could never learn to stop.
    """
    name = f"The chat template of {tokenizer.name_or_path!r}"
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    written = tokenizer.apply_chat_template(turns, tokenize=False)
    around = around_answer(tokenizer, prompt)
    if around is None:
        raise ValueError(f"{name} leaves the assistant's turn out or rewrites it: {written!r}.")
    before, behind = around
    if written != before + answer + behind:
        raise AnswerError(
            f"{name} changes the answer {answer!r}: it writes {written!r}. Most often it trims "
            "blanks at the ends: strip the answers, or set another tokenizer.chat_template."
        )
    end_id = first_special_token(tokenizer, behind)
    if end_id is None:
        raise ValueError(
            f"{name} does not end the assistant's turn with a special token ({behind!r} stands "
            "behind the answer), so the model cannot learn to stop."
        )
    return end_id
