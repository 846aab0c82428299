# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""A question and its answer as token ids, with the loss on the answer alone."""

from collections.abc import Sequence
from typing import Any

from datasets import Dataset

IGNORE_INDEX = -100  # what torch's cross entropy leaves out


class ExampleTooLongError(ValueError):
    """An example has more tokens than `max_length`."""


def tokenize_dataset(dataset: Dataset, tokenizer: Any, max_length: int) -> Dataset:
    """Tokenise every row; rows longer than `max_length` are left out and counted on the screen.

    Args:
        dataset: columns `prompt` (str), `answer` (str) and `molecule` (str or None).
        tokenizer: a tokenizer with a chat template.
        max_length: longest example allowed, in tokens.

    Returns:
        Columns `input_ids`, `labels` and `molecule`, as `MoraCollator` takes them.

    Raises:
        ValueError: not a single row fits into `max_length`, or see `tokenize_example`.
    """

    def tokenize_batch(batch: dict[str, list]) -> dict[str, list]:
        columns = {"input_ids": [], "labels": [], "molecule": []}
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
        return columns

    tokenized = dataset.map(
        tokenize_batch, batched=True, remove_columns=dataset.column_names, desc="Tokenizing"
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

    The prompt and the answer are tokenised apart, so that training sees exactly the prompt tokens
    that generation starts from.

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
        ValueError: the chat template is missing or cannot be split into prompt and answer.
    """
    prompt_text, answer_text = render_turns(prompt, answer, tokenizer)
    # The template holds the special tokens already; a second BOS would be an error.
    prompt_ids = tokenizer(prompt_text, add_special_tokens=False)["input_ids"]
    answer_ids = tokenizer(answer_text, add_special_tokens=False)["input_ids"]
    answer_ids = cut_after_end_of_turn(answer_ids, tokenizer)

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


def count_tokens(prompts: Sequence[str], answers: Sequence[str], tokenizer: Any) -> list[int]:
    """Lengths that `tokenize_example` gives, for many examples at once.

    Args:
        prompts: texts of user turns.
        answers: texts of the assistant turns, aligned with them.
        tokenizer: a tokenizer with a chat template.

    Returns:
        Number of tokens of each.

    Raises:
        ValueError: see `tokenize_example`.
    """
    turns = [render_turns(p, a, tokenizer) for p, a in zip(prompts, answers, strict=True)]
    if not turns:
        return []
    prompt_ids, answer_ids = (
        tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        for texts in zip(*turns, strict=True)
    )
    return [
        len(prompt) + len(cut_after_end_of_turn(answer, tokenizer))
        for prompt, answer in zip(prompt_ids, answer_ids, strict=True)
    ]


def render_turns(prompt: str, answer: str, tokenizer: Any) -> tuple[str, str]:
    """The text up to where generation starts, and the text from there on.

    Raises:
        ValueError: see `tokenize_example`.
    """
    if tokenizer.chat_template is None:
        raise ValueError(
            f"The tokenizer {tokenizer.name_or_path!r} has no chat template. Take an instruct "
            "model as base, or set tokenizer.chat_template."
        )
    user_turn = [{"role": "user", "content": prompt}]
    both_turns = [*user_turn, {"role": "assistant", "content": answer}]
    prompt_text = tokenizer.apply_chat_template(
        user_turn, tokenize=False, add_generation_prompt=True
    )
    full_text = tokenizer.apply_chat_template(both_turns, tokenize=False)
    if not full_text.startswith(prompt_text) or answer not in full_text[len(prompt_text) :]:
        raise ValueError(
            f"The chat template of {tokenizer.name_or_path!r} does not put the answer right behind "
            f"the generation prompt: prompt {prompt_text!r}, both turns {full_text!r}."
        )
    return prompt_text, full_text[len(prompt_text) :]


def cut_after_end_of_turn(answer_ids: list[int], tokenizer: Any) -> list[int]:
    """Drop what a chat template writes behind the end-of-turn token, such as a newline.

    Raises:
        ValueError: the template does not close the assistant's turn with a special token, so that
            the model could never learn to stop.
    """
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    special.add(tokenizer.eos_token_id)
    for position, token_id in enumerate(answer_ids):
        if token_id in special:
            return answer_ids[: position + 1]
    raise ValueError(
        f"The chat template of {tokenizer.name_or_path!r} does not end the assistant's turn with a "
        f"special token ({tokenizer.decode(answer_ids)!r}), so the model cannot learn to stop."
    )
