# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The median of the numbers that a model might write, against models that write known ones."""

from collections import defaultdict

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, GenerationMixin, LlamaConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from modeling_mora.median_mora import MedianNumber, NumberTokens

# Single digits, as in SmolLM2, and a few of the longer tokens that other vocabularies have.
TOKENS = [
    *"0123456789.-",
    "12",
    "345",
    "\u0120-",
    "\u01200",
    "\u2581-1",
    "\u2581",
    "+",
    "...",
    "Gap",
    " is",
    "<end>",
]
IDS = {text: number for number, text in enumerate(TOKENS)}
END = IDS["<end>"]


class Vocabulary:
    """As much of a tokenizer as is asked."""

    @staticmethod
    def get_vocab() -> dict[str, int]:
        return IDS


class WriterOf(PreTrainedModel, GenerationMixin):
    """Writes given texts with given probabilities: row b those of `texts[first token of b]`."""

    config_class = LlamaConfig

    def __init__(self, texts: list[dict[tuple[int, ...], float]]):
        super().__init__(LlamaConfig(vocab_size=len(TOKENS), eos_token_id=END, pad_token_id=END))
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.next_tokens = []
        for chances in texts:
            table = defaultdict(lambda: np.zeros(len(TOKENS)))
            for tokens, chance in chances.items():
                for length, token in enumerate((*tokens, END)):
                    table[tokens[:length]][token] += chance
            self.next_tokens.append(table)

    def forward(self, input_ids: torch.Tensor, **kwargs: object) -> CausalLMOutputWithPast:
        chances = np.stack([self.next_tokens[row[0]][tuple(row[1:])] for row in input_ids.tolist()])
        chances[chances.sum(axis=1) == 0, END] = 1  # rows that have ended
        logits = torch.from_numpy(np.log(chances + 1e-30)).float()
        return CausalLMOutputWithPast(logits=logits[:, None])


def write(texts: list[dict[tuple[int, ...], float]], median: bool = True) -> list[str]:
    processors = [MedianNumber(NumberTokens.of(Vocabulary), [median] * len(texts))]
    written = WriterOf(texts).generate(
        torch.arange(len(texts))[:, None],
        generation_config=GenerationConfig(
            max_new_tokens=12, do_sample=False, use_cache=False, eos_token_id=END, pad_token_id=END
        ),
        logits_processor=processors,
    )
    return ["".join(TOKENS[token] for token in row[1:] if token != END) for row in written]


def digit_by_digit(text: str) -> tuple[int, ...]:
    return tuple(IDS[character] for character in text)


def weighted_median(chances: dict[str, float]) -> float:
    numbers = sorted(chances, key=float)
    upper = np.cumsum([chances[number] for number in numbers]) / sum(chances.values())
    return float(numbers[int(np.searchsorted(upper, 0.5))])


@pytest.mark.parametrize("lowest", [-9.0, -2.0, 0.0])
@pytest.mark.parametrize("sharpness", [1, 8])
def test_it_is_the_median(lowest: float, sharpness: float):
    rng = np.random.default_rng(3)
    batch = []
    for _ in range(40):
        numbers = rng.uniform(lowest, lowest + 10, size=60)
        texts = {f"{number:.{decimals}f}" for number in numbers for decimals in (0, 1, 3)}
        texts = sorted(text for text in texts if abs(float(text)) < 10 and text != "-0")
        batch.append(dict(zip(texts, rng.random(len(texts)) ** sharpness, strict=True)))
    written = write([{digit_by_digit(t): c for t, c in chances.items()} for chances in batch])
    assert [float(text) for text in written] == [weighted_median(chances) for chances in batch]


def test_the_most_frequent_number_need_not_be_it():
    chances = {"-2.0": 0.3, "-3.1": 0.25, "-4.2": 0.2, "-5.0": 0.15, "-6.1": 0.1}
    texts = [{digit_by_digit(text): chance for text, chance in chances.items()}]
    assert write(texts, median=False) == ["-2.0"]
    assert write(texts) == ["-3.1"]


def test_words_stay_greedy():
    def sentence(number: str) -> tuple[int, ...]:
        return (IDS["Gap"], IDS[" is"], *digit_by_digit(number), IDS["..."])

    texts = [
        {sentence("0.1"): 0.4, sentence("0.2"): 0.3, sentence("0.3"): 0.3},
        # More often no number at all: not half of the probability is that of numbers.
        {(IDS["Gap"], IDS["..."]): 0.6, digit_by_digit("0.1"): 0.4},
    ]
    assert write(texts) == ["Gap is0.2...", "Gap..."]


def test_tokens_of_several_characters():
    texts = [
        {
            (IDS["12"], IDS["."], IDS["345"]): 0.4,
            digit_by_digit("11.5"): 0.3,
            digit_by_digit("20.0"): 0.3,
        },
        {(IDS["\u0120-"], IDS["1"]): 0.4, (IDS["\u0120-"], IDS["3"]): 0.3, (IDS["\u01200"],): 0.3},
        {(IDS["\u2581-1"], IDS["."], IDS["5"]): 0.6, (IDS["\u01200"],): 0.4},
    ]
    assert write(texts) == ["12.345", "\u0120-1", "\u2581-1.5"]


def test_which_tokens_numbers_are_made_of():
    tokens = NumberTokens.of(Vocabulary)

    def texts(ids: torch.Tensor) -> list[str]:
        return [TOKENS[token] for token in ids.tolist()]

    assert texts(tokens.following)[:4] == [".", "0", "1", "12"]
    signs = ["\u2581-1", "\u0120-", "-", "\u2581", "+"]
    assert texts(tokens.opening)[:7] == [*signs, "0", "\u01200"]
    assert tokens.points == 1
    assert [text for text in texts(tokens.opening)[5:] if text != "\u01200"] == list(
        texts(tokens.following)[1:]
    )


def test_a_sign_behind_the_mark_of_a_space():
    minus, space, plus = (IDS[text] for text in ("\u0120-", "\u2581", "+"))
    texts = [
        {
            (minus, *digit_by_digit("9.0")): 0.3,
            (minus, *digit_by_digit("0.1")): 0.25,
            (space, *digit_by_digit("0.2")): 0.45,
        },
        {
            (minus, *digit_by_digit("0.05")): 0.25,
            (minus, *digit_by_digit("0.01")): 0.2,
            (space, *digit_by_digit("0.02")): 0.2,
            (space, *digit_by_digit("0.90")): 0.35,
        },
        {
            (plus, *digit_by_digit("0.2")): 0.45,
            digit_by_digit("-0.9"): 0.3,
            digit_by_digit("-0.1"): 0.25,
        },
    ]
    assert write(texts) == ["\u0120-0.1", "\u25810.02", "-0.1"]


def test_a_hyphen_is_no_sign():
    def value(number: str) -> tuple[int, ...]:
        return (IDS["Gap"], IDS["-"], IDS[" is"], *digit_by_digit(number))

    texts = [{value("-0.9"): 0.3, value("-0.1"): 0.25, value("0.2"): 0.45}]
    # A hyphen that was not certain, and then a number from the start.
    uncertain = {
        (IDS["-"], IDS[" is"], *digit_by_digit(number)): chance
        for number, chance in (("0.1", 0.24), ("0.2", 0.18), ("0.9", 0.18))
    }
    texts.append(uncertain | {digit_by_digit("5"): 0.4})
    assert write(texts) == ["Gap- is-0.1", "- is0.2"]


def test_a_number_ends_at_a_space_and_a_second_point():
    texts = [
        {
            (*digit_by_digit("0.2"), IDS["\u01200"]): 0.6,
            digit_by_digit("0.21"): 0.4,
        },
        {(*digit_by_digit("0.2"), IDS["."], IDS["<end>"]): 0.6, digit_by_digit("0.21"): 0.4},
    ]
    # Digits behind it are no more of the number: greedy.
    behind = {"0.2.1": 0.28, "0.2.5": 0.18, "0.2.7": 0.18, "0.21": 0.36}
    texts.append({digit_by_digit(text): chance for text, chance in behind.items()})
    assert write(texts) == ["0.2\u01200", "0.2.", "0.2.1"]


def test_numbers_of_several_widths_are_not_ordered():
    """The limit that the documentation names: texts are ordered, and "10" is before "9"."""
    chances = {"9.7": 0.2, "9.8": 0.2, "9.9": 0.2, "10.0": 0.2, "10.1": 0.2}
    assert write([{digit_by_digit(text): chance for text, chance in chances.items()}]) == ["9.7"]
    assert weighted_median(chances) == 9.9


def test_tokens_that_are_only_proposed_and_a_second_use_are_refused():
    median = MedianNumber(NumberTokens.of(Vocabulary), [True])
    scores = torch.zeros(1, len(TOKENS))
    median(torch.zeros(1, 4, dtype=torch.long), scores)
    median(torch.zeros(1, 5, dtype=torch.long), scores)
    for length in (5, 7, 4):
        with pytest.raises(ValueError, match=f"{length} tokens after 5"):
            median(torch.zeros(1, length, dtype=torch.long), scores)
    with pytest.raises(ValueError, match="2 sequences for 1 rows"):
        median(torch.zeros(2, 6, dtype=torch.long), scores.expand(2, -1))
