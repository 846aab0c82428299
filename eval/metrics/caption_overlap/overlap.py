# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""How much a predicted caption overlaps with the true one: BLEU, ROUGE and METEOR."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
from nltk.corpus import wordnet
from nltk.stem.porter import PorterStemmer
from nltk.translate.bleu_score import modified_precision
from nltk.translate.meteor_score import meteor_score
from rouge_score.rouge_scorer import RougeScorer

from .tokens import WORDS, tokenize

POLICIES = ("strict", "published")

# BLEU-4 needs n-grams of up to four tokens.
LONGEST_NGRAM = 4
ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")

# The published scripts cut captions to so many tokens and drop what stands for no text.
PUBLISHED_MAX_LENGTH = 512
PUBLISHED_DROPPED = ("[PAD]", "[CLS]", "[SEP]")

# Whatever `tokenizer` is, ROUGE has its own tokens.
ROUGE_TOKENIZER = "rouge_score"

NO_SYNONYMS = SimpleNamespace(synsets=lambda word: [])


def score_rows(
    predictions: Sequence[str],
    references: Sequence[str],
    *,
    policy: str = "strict",
    tokenizer: str = WORDS,
) -> dict[str, np.ndarray]:
    """Compare each prediction with its reference.

    BLEU and METEOR are over the tokens of `tokenizer`. ROUGE is the F1 of `rouge_score` over its
    own tokens of the raw text (runs of a-z and 0-9, lower-cased, no stemming), as in the published
    scripts, so that its numbers compare. METEOR takes synonyms where [`wordnet_available`].

    Args:
        predictions: what the model wrote; an empty text scores 0.
        references: the true captions.
        policy: `"strict"` compares whole texts; `"published"` cuts both to 512 tokens for BLEU and
            METEOR and drops the tokens [PAD], [CLS] and [SEP].
        tokenizer: `"words"`, or a WordPiece vocabulary file, tokenizer folder or Hub id.

    Returns:
        Arrays of one row per prediction, for [`aggregate`]: `bleu_matches` and `bleu_ngrams`
        [n, 4], by the length of the n-grams; `prediction_tokens` and `reference_tokens`, the
        numbers of tokens [n]; `rouge1`, `rouge2`, `rougeL` and `meteor` [n], between 0 and 1.

    Raises:
        ValueError: the lengths differ, there are no rows, a row is no text, a reference has no
            tokens, or the policy or tokenizer is unknown.
    """
    _check(predictions, references, policy)
    predicted, true = tokenize(predictions, tokenizer), tokenize(references, tokenizer)
    if policy == "published":
        predicted, true = _cut(predicted), _cut(true)
    for row, tokens in enumerate(true):
        if not tokens:
            raise ValueError(
                f"row {row}: the reference {references[row]!r} is empty, so nothing can be "
                "compared with it: correct the data or drop the row"
            )
    matches, ngrams = _bleu_counts(predicted, true)
    return {
        "bleu_matches": matches,
        "bleu_ngrams": ngrams,
        "prediction_tokens": np.array([len(tokens) for tokens in predicted]),
        "reference_tokens": np.array([len(tokens) for tokens in true]),
        **_rouge(predictions, references),
        "meteor": _meteor(predicted, true),
    }


def aggregate(rows: Mapping[str, np.ndarray]) -> dict[str, float | int | None]:
    """Scores of all rows together: corpus BLEU, and means of ROUGE and METEOR.

    Args:
        rows: what [`score_rows`] returns, or any choice of its rows.

    Returns:
        `bleu2`, `bleu4`, `rouge1`, `rouge2`, `rougeL`, `meteor` between 0 and 1 (None where there
        are no rows), and `n`.
    """
    n = len(rows["meteor"])
    bleu = {f"bleu{order}": _corpus_bleu(rows, order) if n else None for order in (2, 4)}
    means = {name: float(rows[name].mean()) if n else None for name in (*ROUGE_TYPES, "meteor")}
    return {**bleu, **means, "n": n}


def wordnet_available() -> bool:
    """Whether NLTK finds the data `wordnet`, without which METEOR takes no synonyms."""
    try:
        wordnet.ensure_loaded()
    except LookupError:
        return False
    return True


def _check(predictions: Sequence[str], references: Sequence[str], policy: str) -> None:
    if policy not in POLICIES:
        raise ValueError(f"policy={policy!r} is unknown: use one of {', '.join(POLICIES)}")
    if len(predictions) != len(references):
        raise ValueError(
            f"{len(predictions)} predictions but {len(references)} references: pass one of each "
            "per row"
        )
    if not references:
        raise ValueError("nothing to score: there are no rows")
    for name, texts in (("prediction", predictions), ("reference", references)):
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise ValueError(
                    f"row {row}: the {name} {text!r} is no text: pass a string, an empty one where "
                    "the model wrote nothing"
                )


def _cut(rows: list[list[str]]) -> list[list[str]]:
    return [
        [token for token in tokens[:PUBLISHED_MAX_LENGTH] if token not in PUBLISHED_DROPPED]
        for tokens in rows
    ]


def _bleu_counts(
    predicted: list[list[str]], true: list[list[str]]
) -> tuple[np.ndarray, np.ndarray]:
    """N-grams [n, 4] of each prediction found in its reference, and all of them."""
    counts = np.empty((2, len(true), LONGEST_NGRAM), dtype=np.int64)
    for row, (prediction, reference) in enumerate(zip(predicted, true, strict=True)):
        for order in range(1, LONGEST_NGRAM + 1):
            # A text too short for the n-gram counts as one without a match: NLTK's definition.
            precision = modified_precision([reference], prediction, order)
            counts[:, row, order - 1] = precision.numerator, precision.denominator
    return counts[0], counts[1]


def _corpus_bleu(rows: Mapping[str, np.ndarray], order: int) -> float:
    matches = rows["bleu_matches"][:, :order].sum(axis=0)
    if not matches.all():
        return 0.0
    precisions = matches / rows["bleu_ngrams"][:, :order].sum(axis=0)
    ratio = rows["reference_tokens"].sum() / rows["prediction_tokens"].sum()
    brevity_penalty = min(1.0, np.exp(1 - ratio))
    return float(brevity_penalty * np.exp(np.log(precisions).mean()))


def _rouge(predictions: Sequence[str], references: Sequence[str]) -> dict[str, np.ndarray]:
    scorer = RougeScorer(list(ROUGE_TYPES))
    scores = [
        scorer.score(target=reference, prediction=prediction)
        for prediction, reference in zip(predictions, references, strict=True)
    ]
    return {
        name: np.array([score[name].fmeasure for score in scores], dtype=float)
        for name in ROUGE_TYPES
    }


def _meteor(predicted: list[list[str]], true: list[list[str]]) -> np.ndarray:
    # Most of NLTK's time goes into the same stems and synonyms again and again.
    stemmer = SimpleNamespace(stem=lru_cache(maxsize=None)(PorterStemmer().stem))
    synonyms = NO_SYNONYMS
    if wordnet_available():
        synonyms = SimpleNamespace(synsets=lru_cache(maxsize=None)(wordnet.synsets))
    return np.array(
        [
            meteor_score([reference], prediction, stemmer=stemmer, wordnet=synonyms)
            for prediction, reference in zip(predicted, true, strict=True)
        ],
        dtype=float,
    )
