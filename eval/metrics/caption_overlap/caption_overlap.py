# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""`evaluate` module: BLEU-2, BLEU-4, ROUGE-1, ROUGE-2, ROUGE-L and METEOR of captions."""

import datasets
import evaluate

from .overlap import ROUGE_TOKENIZER, aggregate, score_rows, wordnet_available
from .tokens import WORDS

DESCRIPTION = """
Overlap of generated captions of molecules with the true ones: corpus BLEU-2 and BLEU-4, ROUGE-1,
ROUGE-2, ROUGE-L (F1) and METEOR, with the tokenizer that was used in the result.
"""

INPUTS = """
Args:
    predictions (list of str): what the model wrote; an empty text scores 0.
    references (list of str): the true captions, one per prediction.
    policy (str): "strict" (default) compares whole texts; "published" cuts them to 512 tokens as
        the scripts of Mol-Instructions, InstructMol and MoRA do.
    tokenizer (str): tokens of BLEU and METEOR: "words" (default), or a WordPiece vocabulary file,
        tokenizer folder or Hub id such as "allenai/scibert_scivocab_uncased".
Returns:
    bleu2, bleu4, rouge1, rouge2, rougeL, meteor (float): scores between 0 and 1.
    n (int): number of rows.
    policy, tokenizer (str): as given; rouge_tokenizer (str): ROUGE's own tokens.
    meteor_wordnet (bool): whether METEOR knew synonyms, for which NLTK needs the data "wordnet".
"""

CITATION = """
@inproceedings{edwards2022translation,
  title={Translation between Molecules and Natural Language},
  author={Edwards, Carl and Lai, Tuan and Ros, Kevin and Honke, Garrett and Cho, Kyunghyun and
    Ji, Heng},
  booktitle={EMNLP},
  year={2022}
}
"""


class CaptionOverlap(evaluate.Metric):
    """BLEU, ROUGE and METEOR of captions."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": text, "references": text}),
            reference_urls=["https://aclanthology.org/2022.emnlp-main.26/"],
        )

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        policy: str = "strict",
        tokenizer: str = WORDS,
    ) -> dict[str, float | int | str | bool]:
        rows = score_rows(predictions, references, policy=policy, tokenizer=tokenizer)
        return {
            **aggregate(rows),
            "policy": policy,
            "tokenizer": tokenizer,
            "rouge_tokenizer": ROUGE_TOKENIZER,
            "meteor_wordnet": wordnet_available(),
        }
