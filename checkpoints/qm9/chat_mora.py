# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""How a chat template writes an answer and ends it, and how an answer is read from tokens."""

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

PLACEHOLDER = "placeholder-of-the-answer"


def around_answer(tokenizer: PreTrainedTokenizerBase, question: str) -> tuple[str, str] | None:
    """What the chat template writes before and behind the answer to a question.

    Args:
        tokenizer: a tokenizer with a chat template.
        question: text of the user turn.

    Returns:
        Both texts, or None where the template does not write the answer at all.
    """
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": PLACEHOLDER}]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    before, found, behind = text.rpartition(PLACEHOLDER)
    return (before, behind) if found else None


def first_special_token(tokenizer: PreTrainedTokenizerBase, text: str) -> int | None:
    """Id of the first special token in a text; None without one."""
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    special.add(tokenizer.eos_token_id)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return next((i for i in ids if i in special), None)


def end_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids that end an answer.

    Those of the generation config and of the tokenizer, and the one that the chat template closes
    the assistant's turn with: fine-tuning teaches that one, and not every base lists it.
    """
    configured = model.generation_config.eos_token_id
    if configured is None:
        configured = []
    elif isinstance(configured, int):
        configured = [configured]
    end_ids = {*configured, tokenizer.eos_token_id}
    around = around_answer(tokenizer, "?") if tokenizer.chat_template is not None else None
    if around is not None:
        end_ids.add(first_special_token(tokenizer, around[1]))
    return sorted(end_ids - {None})


def read_answer(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    """Text of generated tokens, without special tokens and with every blank as it was learnt."""
    # Some tokenizers ask for a clean-up on their own, which takes blanks before punctuation away.
    return tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
