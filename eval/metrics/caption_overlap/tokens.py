# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Tokenizers for caption scores: words by a pattern, or the WordPiece of a BERT."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer
from transformers import BertTokenizerFast

# Name of the tokenizer that needs no files: runs of letters and digits, and each other sign.
WORDS = "words"
WORD_PATTERN = re.compile(r"\w+|[^\w\s]")


def tokenize(texts: Sequence[str], tokenizer: str = WORDS) -> list[list[str]]:
    """Split each text into tokens: whole, without special tokens added.

    Args:
        texts: the texts.
        tokenizer: `"words"` (lower-cased), or what [`load_wordpiece`] takes.

    Raises:
        ValueError: there is no such tokenizer.
    """
    if tokenizer == WORDS:
        return [WORD_PATTERN.findall(text.lower()) for text in texts]
    encodings = load_wordpiece(tokenizer).encode_batch(list(texts), add_special_tokens=False)
    return [encoding.tokens for encoding in encodings]


@lru_cache(maxsize=4)
def load_wordpiece(name_or_path: str) -> Tokenizer:
    """Load the WordPiece tokenizer of a BERT, with its length limit removed.

    Args:
        name_or_path: a vocabulary file `vocab.txt`, a folder, or a Hub id such as
            `allenai/scibert_scivocab_uncased`. A vocabulary file alone does not say whether text is
            lower-cased: it is, unless the vocabulary holds capital letters.

    Raises:
        ValueError: there is no such tokenizer, or it is no WordPiece.
    """
    try:
        if Path(name_or_path).is_file():
            tokenizer = _read_vocabulary(Path(name_or_path))
        else:
            tokenizer = BertTokenizerFast.from_pretrained(name_or_path)
    except (OSError, ValueError) as error:
        raise _not_loaded(name_or_path, str(error).strip().splitlines()[0]) from error
    tokenizer = tokenizer.backend_tokenizer
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    # Where transformers finds no vocabulary, it makes one of special tokens alone; where it finds
    # one that is no WordPiece's, it uses it as if it were.
    if "[UNK]" not in vocabulary or not _words(vocabulary):
        raise _not_loaded(name_or_path, "no WordPiece vocabulary was found there")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _read_vocabulary(path: Path) -> BertTokenizerFast:
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    vocabulary = {token: number for number, token in enumerate(lines)}
    uncased = all(word == word.lower() for word in _words(vocabulary))
    return BertTokenizerFast(vocab=vocabulary, do_lower_case=uncased)


def _words(vocabulary: Iterable[str]) -> list[str]:
    """What is no special token such as [CLS] or [unused1]."""
    return [token for token in vocabulary if not (token.startswith("[") and token.endswith("]"))]


def _not_loaded(name: str, reason: str) -> ValueError:
    return ValueError(
        f"tokenizer={name!r} is neither {WORDS!r} nor a WordPiece vocabulary file, tokenizer "
        f"folder or Hub id that can be read from here ({reason}): download it first, or use "
        f"{WORDS!r}"
    )
