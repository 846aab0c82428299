# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The median of the numbers that a model might write, at the price of a greedy answer.

A greedy answer is about the most frequent number, which a model that is unsure writes for half of
the molecules. The absolute error asks for the median of the distribution (Lukasik et al., arXiv
2403.04182). It needs no samples: token by token, the numbers are laid along [0, 1] in their order,
as in arithmetic sampling (Vilnis et al., arXiv 2210.15458), and the token above 1/2 is taken.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import LogitsProcessor, PreTrainedTokenizerBase

# No value hangs on the last thousandth of what may follow a token, but a rounding error might.
MARGIN = 1e-3
PIECE = re.compile(r"-?[0-9][0-9.]*|-|\.[0-9]*")


@dataclass(frozen=True)
class NumberTokens:
    """The tokens that numbers are written with.

    Attributes:
        opening: [N] what a number begins with, from the lowest numbers to the highest.
        following: [F] what it goes on with, digits and the decimal point, from small to large.
        points: how many of `following` begin with the point; they come first.
        minus: the tokens that begin with a minus.
        bare_minus: those that are no more than that.
    """

    opening: torch.Tensor
    following: torch.Tensor
    points: int
    minus: frozenset[int]
    bare_minus: frozenset[int]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "NumberTokens":
        """Find them in a vocabulary."""
        # SentencePiece and byte-level BPE mark a space before the word.
        texts = {
            token: text.lstrip("\u2581\u0120") for text, token in tokenizer.get_vocab().items()
        }
        tokens = [token for token, text in texts.items() if PIECE.fullmatch(text)]
        # Of two texts of one length the higher number is the larger text, and "." is before "0".
        tokens.sort(key=lambda token: (texts[token].lstrip("-"), token))
        minus = [token for token in tokens if texts[token].startswith("-")]
        following = [token for token in tokens if token not in set(minus)]
        points = sum(texts[token].startswith(".") for token in following)
        return cls(
            opening=torch.tensor(minus[::-1] + following[points:]),
            following=torch.tensor(following),
            points=points,
            minus=frozenset(minus),
            bare_minus=frozenset(token for token in minus if texts[token] == "-"),
        )


@dataclass
class _Row:
    """How far the number of one row is.

    Attributes:
        position: of the median within what may still follow, in [0, 1].
        is_negative: a minus has been written.
        has_digits: the number has begun.
        is_done: and ended; what follows is greedy.
    """

    position: float = 0.5
    is_negative: bool = False
    has_digits: bool = False
    is_done: bool = False

    def choose(self, parts: torch.Tensor) -> int:
        """Index of the part that the position lies in; the position is then that within it."""
        parts = parts / parts.sum()
        upper = parts.cumsum(0)
        index = int(torch.searchsorted(upper, self.position))
        inside = 1 - (float(upper[index]) - self.position) / float(parts[index])
        self.position = min(max(inside, MARGIN), 1 - MARGIN)
        return index


class MedianNumber(LogitsProcessor):
    """Makes `generate(do_sample=False)` write the median of each row's next number.

    Words before and behind the number stay greedy: a row turns to its number where tokens that
    numbers begin with have more than half of the probability. The median is exact where the
    numbers that a row may write have as many digits before the point (1.5 and 2.5, not 10.5), and
    one tokenization each. An object serves one call of `generate`.

    Args:
        tokens: of the model's tokenizer.
        is_number: [B] which rows ask for a number; the others stay greedy altogether.

    Example:
        >>> median = MedianNumber(NumberTokens.of(processor.tokenizer), [True] * len(input_ids))
        >>> model.generate(**inputs, logits_processor=[median], do_sample=False)
    """

    def __init__(self, tokens: NumberTokens, is_number: Sequence[bool]):
        self.tokens = tokens
        self.rows = [_Row(is_done=not asks) for asks in is_number]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Leave each row the token of its median alone, where it is at its number.

        Args:
            input_ids: [B, T].
            scores: [B, V] logits of the next token.

        Returns:
            [B, V] logits.

        Raises:
            ValueError: several beams or return sequences for a row.
        """
        if len(scores) != len(self.rows):
            raise ValueError(
                f"{len(scores)} sequences for {len(self.rows)} rows: a median is one answer, so "
                "leave out num_beams and num_return_sequences."
            )
        tokens = self.tokens
        # Of a vocabulary on a GPU, these few columns alone are fetched.
        chances = scores.float().softmax(dim=1)
        opening = chances[:, tokens.opening].double().cpu()
        following = chances[:, tokens.following].double().cpu()
        ends = scores.index_fill(1, tokens.following.to(scores.device), -math.inf).argmax(dim=1)
        scores = scores.clone()
        for number, row in enumerate(self.rows):
            token = None
            if row.has_digits and not row.is_done:
                token = self._go_on(row, following[number], int(ends[number]))
            elif not row.is_done:
                token = self._begin(row, opening[number], following[number])
            if token is not None:
                scores[number] = -math.inf
                scores[number, token] = 0.0
        return scores

    def _begin(self, row: _Row, opening: torch.Tensor, following: torch.Tensor) -> int | None:
        """Minus or first digit of the median, or None where words are more likely."""
        tokens, parts = self.tokens.opening, opening
        if row.is_negative:
            tokens = self.tokens.following[self.tokens.points :].flip(0)
            parts = following[self.tokens.points :].flip(0)
        if not parts.sum() > 0.5:
            return None
        token = int(tokens[row.choose(parts)])
        row.is_negative |= token in self.tokens.minus
        row.has_digits = token not in self.tokens.bare_minus
        return token

    def _go_on(self, row: _Row, following: torch.Tensor, end: int) -> int:
        """The next digit or point, or `end`, the likeliest token that ends the number."""
        # Of all that begins as this number does, the number itself is the smallest.
        parts = torch.cat([(1 - following.sum()).clamp(min=0)[None], following])
        last = len(parts) - 1
        index = last - row.choose(parts.flip(0)) if row.is_negative else row.choose(parts)
        row.is_done = index == 0
        return end if row.is_done else int(self.tokens.following[index - 1])


__all__ = ["MedianNumber", "NumberTokens"]
