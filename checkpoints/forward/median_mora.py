# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The median of the numbers that a model might write, at about the price of a greedy answer.

A greedy answer is about the most frequent number, which a model that is unsure writes for half of
the molecules. The absolute error asks for the median of the distribution (Lukasik et al., arXiv
2403.04182). It needs no samples: token by token, the numbers are laid along [0, 1] in their order,
as in arithmetic sampling (Vilnis et al., arXiv 2210.15458), and the token above 1/2 is taken.

That order is the order of the texts, so it is for properties whose values all have as many digits
before the point: orbital energies, logD, most solubilities, but not melting points.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import LogitsProcessor, PreTrainedTokenizerBase

# No value hangs on the last thousandth of what may follow a token, but a rounding error might.
MARGIN = 1e-3
NUMBER = re.compile(r"-?[0-9][0-9.]*|\.[0-9]*|[-+]?")
# SentencePiece and byte-level BPE mark a space before a word.
SPACES = ("\u2581", "\u0120")


@dataclass(frozen=True)
class NumberTokens:
    """The tokens that numbers are written with.

    Attributes:
        opening: [N] what a number begins with, from the lowest numbers to the highest.
        following: [F] what it goes on with, points and digits, from the smallest to the largest.
        points: how many of `following` begin with a point; they come first.
        minus: those of `opening` that begin with a minus.
        bare: those of `opening` without a digit: signs, and the mark of a space.
    """

    opening: torch.Tensor
    following: torch.Tensor
    points: int
    minus: frozenset[int]
    bare: frozenset[int]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "NumberTokens":
        """Find them in a vocabulary."""
        vocabulary = tokenizer.get_vocab()
        texts = {token: text.lstrip("".join(SPACES)) for text, token in vocabulary.items() if text}
        found = [token for token, text in texts.items() if NUMBER.fullmatch(text)]
        # Of two texts of one length the higher number is the larger text, and "." is before "0".
        found.sort(key=lambda token: (texts[token].strip("+-"), token))
        minus = [token for token in found if texts[token].startswith("-")]
        digits = [token for token in found if texts[token][:1].isdigit()]
        points = [token for token in found if texts[token].startswith(".")]
        bare = [token for token in found if texts[token] in ("", "+", "-")]
        # A number ends at a space.
        marked = {token for text, token in vocabulary.items() if text.startswith(SPACES)}
        return cls(
            opening=torch.tensor([*minus[::-1], *(t for t in bare if t not in minus), *digits]),
            following=torch.tensor([t for t in points + digits if t not in marked]),
            points=len(set(points) - marked),
            minus=frozenset(minus),
            bare=frozenset(bare),
        )


@dataclass
class _Row:
    """How far the number of one row is.

    Attributes:
        position: of the median within what may still follow, in [0, 1].
        is_negative: a minus has been written.
        has_digits: the number has begun.
        has_point: its decimals have begun.
        is_done: and ended; what follows is greedy.
    """

    position: float = 0.5
    is_negative: bool = False
    has_digits: bool = False
    has_point: bool = False
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
    """Makes `generate(do_sample=False)` write the median of each row's number.

    Words before and behind the first digits stay greedy: a row turns to its number where tokens
    that numbers begin with have more than half of the probability. Where the
    numbers that a row may write have as many digits before the point and no exponent, and are cut
    into tokens of the same lengths, the median is exact, but for the thousandth at either end of
    what may follow a token. Where 9.9 and 10.1 are both likely it is far off. An object serves one
    call of `generate`, which decodes one token at a time.

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
        self.length: int | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Leave each row the token of its median alone, where it is at its number.

        Args:
            input_ids: [B, T].
            scores: [B, V] logits of the next token.

        Returns:
            [B, V] logits.

        Raises:
            ValueError: several beams or return sequences for a row, tokens that are only proposed
                (`prompt_lookup_num_tokens`, an assistant model), or a second use.
        """
        self._check(input_ids)
        if all(row.is_done for row in self.rows):
            return scores
        tokens = self.tokens
        # Of a vocabulary on a GPU, these few columns alone are fetched.
        chances = scores.float().softmax(dim=1)
        opening = chances[:, tokens.opening].cpu().double()
        following = chances[:, tokens.following].cpu().double()
        scores = scores.clone()
        for number, row in enumerate(self.rows):
            token = None
            if row.has_digits and not row.is_done:
                token = self._go_on(row, following[number], scores[number])
            elif not row.is_done:
                token = self._begin(row, opening[number], following[number])
            if token is not None:
                scores[number] = -math.inf
                scores[number, token] = 0.0
        return scores

    def _check(self, input_ids: torch.Tensor) -> None:
        if len(input_ids) != len(self.rows):
            raise ValueError(
                f"{len(input_ids)} sequences for {len(self.rows)} rows: a median is one answer, so "
                "leave out num_beams and num_return_sequences."
            )
        length = input_ids.shape[1]
        if self.length not in (None, length - 1):
            raise ValueError(
                f"{length} tokens after {self.length}: a median is written token by token, so "
                "leave out prompt_lookup_num_tokens and assistant_model, and make a MedianNumber "
                "for each call of generate."
            )
        self.length = length

    def _begin(self, row: _Row, opening: torch.Tensor, following: torch.Tensor) -> int | None:
        """Sign or first digit of the median, or None where words are more likely."""
        digits = slice(self.tokens.points, None)
        if row.is_negative and following[digits].sum() > 0.5:
            tokens, parts = self.tokens.following[digits].flip(0), following[digits].flip(0)
        else:
            tokens, parts = self.tokens.opening, opening
            # What has been written is a hyphen then, and before words no space of a number.
            if row.is_negative or not parts.sum() > 0.5:
                row.position, row.is_negative = 0.5, False
        if not parts.sum() > 0.5:
            return None
        token = int(tokens[row.choose(parts)])
        row.is_negative |= token in self.tokens.minus
        row.has_digits = token not in self.tokens.bare
        return token

    def _go_on(self, row: _Row, following: torch.Tensor, scores: torch.Tensor) -> int:
        """The next digit or point, or the likeliest token that ends the number."""
        # A second point is that of a sentence.
        first = self.tokens.points if row.has_point else 0
        tokens, parts = self.tokens.following[first:], following[first:]
        # Of all that begins as this number does, the number itself is the smallest.
        parts = torch.cat([(1 - parts.sum()).clamp(min=0)[None], parts])
        last = len(parts) - 1
        index = last - row.choose(parts.flip(0)) if row.is_negative else row.choose(parts)
        if index == 0:
            row.is_done = True
            return int(scores.index_fill(0, tokens.to(scores.device), -math.inf).argmax())
        row.has_point |= first < index <= self.tokens.points
        return int(tokens[index - 1])


__all__ = ["MedianNumber", "NumberTokens"]
