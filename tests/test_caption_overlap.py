# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Caption scores: cases worked out by hand, and NLTK and rouge_score as oracles."""

import json
import math
import os
import random
import re
import sys
from pathlib import Path
from types import ModuleType

import evaluate
import numpy as np
import pandas as pd
import pytest
from conftest import byte_tokenizer, hub_environment, run, run_without_package
from huggingface_hub import HfApi
from nltk.translate.bleu_score import corpus_bleu
from nltk.translate.meteor_score import meteor_score
from rouge_score.rouge_scorer import RougeScorer
from transformers import BertTokenizerFast

from eval.metrics.caption_overlap import overlap
from eval.metrics.caption_overlap.overlap import aggregate, score_rows, wordnet_available
from eval.metrics.caption_overlap.tokens import tokenize

FOLDER = Path("eval/metrics/caption_overlap").absolute()
CHEBI = Path(os.environ.get("MORA_DATA", "")) / "chebi20" / "validation.jsonl"
needs_data = pytest.mark.skipif("MORA_DATA" not in os.environ, reason="MORA_DATA is not set")

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "mole", "##cule", "is", "."]
WORDNET = """
from eval.metrics.caption_overlap.overlap import aggregate, score_rows, wordnet_available
assert wordnet_available()
score = aggregate(score_rows(["a sour"], ["an acid"]))["meteor"]
assert abs(score - 0.25) < 1e-12, score
"""
FROM_HUB = """
from eval.metrics.caption_overlap.tokens import tokenize
assert tokenize(["The molecule"], "me/scibert") == [["the", "mole", "##cule"]]
"""


@pytest.fixture(autouse=True)
def no_wordnet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same METEOR whether or not this machine has WordNet."""
    monkeypatch.setattr(overlap, "wordnet_available", lambda: False)


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    path = tmp_path / "scibert" / "vocab.txt"
    path.parent.mkdir()
    path.write_text("\n".join(VOCABULARY) + "\n")
    return path


def score(prediction: str, reference: str, **settings: str) -> dict:
    return aggregate(score_rows([prediction], [reference], **settings))


def meteor(precision: float, recall: float, chunks_per_match: float) -> float:
    """The formula of Lavie and Agarwal 2007."""
    mean = precision * recall / (0.9 * precision + 0.1 * recall)
    return mean * (1 - 0.5 * chunks_per_match**3)


# prediction, reference, then what is expected; what is not named is 0.
CASES = {
    # One chunk of 5 matches is still charged for: 1 - 0.5 * (1/5)^3.
    "identical": (
        ("The molecule is ethanol.", "The molecule is ethanol."),
        {"bleu2": 1, "bleu4": 1, "rouge1": 1, "rouge2": 1, "rougeL": 1, "meteor": 0.996},
    ),
    "other case": (
        ("THE molecule IS Ethanol.", "the Molecule is ethanol."),
        {"bleu2": 1, "bleu4": 1, "rouge1": 1, "rouge2": 1, "rougeL": 1, "meteor": 0.996},
    ),
    "blanks and line breaks are between tokens only": (
        (" The molecule\n\tis ethanol . ", "The molecule is ethanol."),
        {"bleu2": 1, "bleu4": 1, "rouge1": 1, "rouge2": 1, "rougeL": 1, "meteor": 0.996},
    ),
    "empty prediction": (("", "The molecule is ethanol."), {}),
    "blank prediction": ((" \n", "The molecule is ethanol."), {}),
    "nothing shared": (("It boils", "the molecule is ethanol"), {}),
    # No bigram, so no BLEU-2; one match in one chunk: 1 - 0.5.
    "one word": (("ethanol", "ethanol"), {"rouge1": 1, "rougeL": 1, "meteor": 0.5}),
    # Three tokens, so no BLEU-4; rouge_score sees no token at all. 1 - 0.5 / 27.
    "punctuation only": (("...", "..."), {"bleu2": 1, "meteor": 1 - 0.5 / 27}),
    "word without its full stop": (
        ("ethanol", "ethanol."),
        {"rouge1": 1, "rougeL": 1, "meteor": meteor(1, 1 / 2, 1)},
    ),
    # Greek letters are letters; for rouge_score only "d" and "glucose" are tokens.
    "unicode": (
        ("β-D-glucose", "Β-d-GLUCOSE"),
        {"bleu2": 1, "bleu4": 1, "rouge1": 1, "rouge2": 1, "rougeL": 1, "meteor": 0.996},
    ),
    # The same letter with its accent apart: texts are not normalised.
    "unicode forms": (("\u00e9", "e\u0301"), {}),
    "other letters only": (("水", "水"), {"meteor": 0.5}),
    "underscore is part of a word": (("a_b", "a b"), {"rouge1": 1, "rouge2": 1, "rougeL": 1}),
    # Each "the" of the reference is found once: precision 2/7, recall 2/6, two chunks.
    "repeated word": (
        ("the the the the the the the", "the cat is on the mat"),
        {"rouge1": 4 / 13, "rougeL": 4 / 13, "meteor": meteor(2 / 7, 2 / 6, 1)},
    ),
    "repeated word in the reference": (
        ("the cat", "the the the cat"),
        {
            "bleu2": math.exp(1 - 4 / 2),
            "rouge1": 2 / 3,
            "rouge2": 1 / 2,
            "rougeL": 2 / 3,
            "meteor": meteor(1, 1 / 2, 1 / 2),
        },
    ),
    # All its n-grams are right, so only the brevity penalty exp(1 - 5/3) is left.
    "too short": (
        ("the molecule is", "the molecule is an acid"),
        {
            "bleu2": math.exp(1 - 5 / 3),
            "rouge1": 3 / 4,
            "rouge2": 2 * 1 * (1 / 2) / (1 + 1 / 2),
            "rougeL": 3 / 4,
            "meteor": meteor(1, 3 / 5, 1 / 3),
        },
    ),
    # Too long has no penalty but its precision: 3/5 and 2/4.
    "too long": (
        ("the molecule is an acid", "the molecule is"),
        {
            "bleu2": math.sqrt(3 / 5 * 2 / 4),
            "rouge1": 3 / 4,
            "rouge2": 2 * 1 * (1 / 2) / (1 + 1 / 2),
            "rougeL": 3 / 4,
            "meteor": meteor(3 / 5, 1, 1 / 3),
        },
    ),
    "other order": (("b a", "a b"), {"rouge1": 1, "rougeL": 1 / 2, "meteor": 0.5}),
    "same stem": (("acids", "acid"), {"meteor": 0.5}),
    "synonym, without WordNet": (("sour", "acid"), {}),
    "locants": (
        ("1,2-diol", "1, 2 - diol"),
        {"bleu2": 1, "bleu4": 1, "rouge1": 1, "rouge2": 1, "rougeL": 1, "meteor": 0.996},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_by_hand(case: str):
    texts, expected = CASES[case]
    zeros = dict.fromkeys(("bleu2", "bleu4", "rouge1", "rouge2", "rougeL", "meteor"), 0.0)
    assert score(*texts) == pytest.approx({**zeros, **expected, "n": 1}, abs=1e-12)


def test_bleu_is_of_the_corpus_and_not_a_mean():
    rows = score_rows(["a b", "c d e f"], ["a b", "g h i j"])
    assert aggregate(rows)["bleu2"] == pytest.approx(math.sqrt(2 / 6 * 1 / 4))
    assert aggregate({k: v[:1] for k, v in rows.items()})["bleu2"] == 1


def test_a_row_too_short_for_the_ngram_counts_as_one_without_a_match():
    assert aggregate(score_rows(["acid", "a b c"], ["acid", "a b c"]))["bleu2"] == pytest.approx(
        math.sqrt(4 / 4 * 2 / 3)
    )


def test_only_published_cuts_at_512_tokens():
    texts = ("a " * 512 + "b " * 100, "a " * 512 + "c " * 100)
    strict, published = score(*texts), score(*texts, policy="published")
    assert strict["bleu2"] == pytest.approx(math.sqrt(512 / 612 * 511 / 611))
    assert strict["meteor"] == pytest.approx(meteor(512 / 612, 512 / 612, 1 / 512))
    assert published["bleu2"] == published["bleu4"] == 1
    assert published["meteor"] == pytest.approx(meteor(1, 1, 1 / 512))
    differing_last = ("a " * 511 + "b", "a " * 511 + "c")
    assert score(*differing_last, policy="published")["bleu2"] < 1
    # Those scripts give rouge_score the whole text.
    assert published["rouge1"] == strict["rouge1"] == pytest.approx(512 / 612)


def test_errors_name_the_row():
    for blank in ("", " \n"):
        with pytest.raises(ValueError, match=r"row 1: the reference .* is empty"):
            score_rows(["a", "b"], ["a", blank])
    with pytest.raises(ValueError, match="row 1: the prediction None is no text"):
        score_rows(["a", None], ["a", "b"])
    with pytest.raises(ValueError, match=r"row 0: the reference 0\.5 is no text"):
        score_rows(["a"], [0.5])
    with pytest.raises(ValueError, match="1 predictions but 2 references"):
        score_rows(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="no rows"):
        score_rows([], [])
    with pytest.raises(ValueError, match="policy='lenient' is unknown"):
        score_rows(["a"], ["a"], policy="lenient")


def test_no_rows_left_gives_no_scores():
    rows = score_rows(["a"], ["a"])
    nothing = aggregate({name: values[:0] for name, values in rows.items()})
    assert nothing.pop("n") == 0
    assert set(nothing.values()) == {None}


def test_wordpiece_from_a_file_and_a_folder(vocabulary: Path, tmp_path: Path):
    texts = ["The molecule is [SEP] thé x.", ""]
    expected = [["the", "mole", "##cule", "is", "[SEP]", "the", "[UNK]", "."], []]
    assert tokenize(texts, str(vocabulary)) == expected
    assert tokenize(texts, str(vocabulary.parent)) == expected
    BertTokenizerFast.from_pretrained(vocabulary.parent).save_pretrained(tmp_path / "saved")
    assert tokenize(texts, str(tmp_path / "saved")) == expected


def test_a_vocabulary_with_capitals_is_not_lower_cased(tmp_path: Path):
    (tmp_path / "cased.txt").write_text("\n".join([*VOCABULARY, "The"]))
    assert tokenize(["The the THE"], str(tmp_path / "cased.txt")) == [["The", "the", "[UNK]"]]


def test_a_stored_length_limit_does_not_cut(vocabulary: Path, tmp_path: Path):
    saved = BertTokenizerFast.from_pretrained(vocabulary.parent)
    saved.backend_tokenizer.enable_truncation(2)
    saved.backend_tokenizer.enable_padding(length=9)
    saved.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert tokenize(["the the the"], str(tmp_path)) == [["the", "the", "the"]]


def test_only_published_drops_special_tokens(vocabulary: Path):
    texts = ("[CLS] the [PAD] is [SEP]", "the is")
    assert score(*texts, tokenizer=str(vocabulary), policy="published")["bleu2"] == 1
    expected = pytest.approx(0)  # no bigram is shared
    assert score(*texts, tokenizer=str(vocabulary))["bleu2"] == expected


def test_a_reference_without_tokens_is_empty(vocabulary: Path):
    with pytest.raises(ValueError, match="row 0"):
        score("the", "\u200b", tokenizer=str(vocabulary))
    with pytest.raises(ValueError, match="row 0"):
        score("the", "[SEP]", tokenizer=str(vocabulary), policy="published")


@pytest.mark.parametrize("name", ["word", "/nowhere/vocab.txt", "folder", "file", "binary", "bpe"])
def test_a_tokenizer_that_is_none(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Above all where transformers would return one that knows no words."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("the\nis\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    byte_tokenizer().save_pretrained(tmp_path / "bpe")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=f"tokenizer='{name}' is neither 'words' nor a WordPiece"):
        tokenize(["the"], name)


@pytest.mark.slow
def test_a_tokenizer_by_its_hub_id(hub, vocabulary: Path, tmp_path: Path):
    """As SciBERT's: a vocabulary alone, and a configuration that names no model type."""
    (vocabulary.parent / "config.json").write_text("{}")
    api = HfApi(endpoint=hub.url, token="hf_localtest")
    api.create_repo("me/scibert")
    api.upload_folder(repo_id="me/scibert", folder_path=vocabulary.parent)
    run(FROM_HUB, cwd=tmp_path, **hub_environment(hub, tmp_path / "home"))


def wordnet_of_one_synset(folder: Path) -> None:
    """NLTK's files with one meaning, which "acid" and "sour" share."""
    folder.mkdir(parents=True)
    for name in ("lexnames", "cntlist.rev", "index.sense"):
        (folder / name).write_text("")
    (folder / "lexnames").write_text("00\tnoun.all\t1\n")
    for part in ("adj", "adv", "noun", "verb"):
        for name in (f"data.{part}", f"index.{part}", f"{part}.exc"):
            (folder / name).write_text("")
    (folder / "data.noun").write_text("00000000 00 n 02 acid 0 sour 0 000 | a taste  \n")
    lines = [f"{word} n 1 0 1 0 00000000  \n" for word in ("acid", "sour")]
    (folder / "index.noun").write_text("".join(lines))


def test_meteor_takes_synonyms_where_wordnet_is(tmp_path: Path):
    """One match of two words, and "a" is no stem of "an": 0.5 * (1 - 0.5)."""
    wordnet_of_one_synset(tmp_path / "data" / "corpora" / "wordnet")
    run(WORDNET, cwd=tmp_path, NLTK_DATA=str(tmp_path / "data"))


def oracle(predicted: list[list[str]], true: list[list[str]]) -> dict[str, float]:
    bleu2, bleu4 = corpus_bleu(
        [[tokens] for tokens in true], predicted, weights=[(0.5, 0.5), (0.25,) * 4]
    )
    pairs = zip(predicted, true, strict=True)
    scores = [meteor_score([t], p, wordnet=overlap.NO_SYNONYMS) for p, t in pairs]
    return {"bleu2": bleu2, "bleu4": bleu4, "meteor": np.mean(scores)}


def rouge_oracle(predictions: list[str], references: list[str]) -> dict[str, float]:
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    scores = [scorer.score(t, p) for p, t in zip(predictions, references, strict=True)]
    return {name: np.mean([s[name].fmeasure for s in scores]) for name in scores[0]}


def worsened(captions: list[str]) -> list[str]:
    """Other captions; captions with words lost, doubled, out of order; an empty and a long one."""
    generator = random.Random(0)
    changed = captions[1:] + captions[:1]
    for row in range(0, len(changed), 2):
        words = captions[row].split()
        kept = [word for word in words for _ in range(generator.choice([0, 1, 1, 1, 1, 2]))]
        if row % 3 == 0:
            generator.shuffle(kept)
        changed[row] = " ".join(kept)
    changed[0] = ""
    changed[2] = " ".join(captions[:12])
    return changed


@needs_data
@pytest.mark.parametrize("policy", ["strict", "published"])
def test_libraries_agree_on_chebi(policy: str):
    lines = CHEBI.read_text().splitlines()
    captions = [json.loads(line)["description"] for line in lines]
    predictions = worsened(captions)
    rows = score_rows(predictions, captions, policy=policy)
    words = [re.findall(r"\w+|[^\w\s]", text.lower()) for text in predictions + captions]
    words = [tokens[:512] if policy == "published" else tokens for tokens in words]
    assert (max(map(len, words)) > 512) == (policy == "strict")
    expected = oracle(words[: len(captions)], words[len(captions) :])
    expected |= rouge_oracle(predictions, captions)
    assert aggregate(rows) == pytest.approx({**expected, "n": 3301}, rel=1e-12)

    # A resample of the rows is scored as if it had been compared anew.
    index = np.random.default_rng(0).integers(0, 300, size=300)
    again = score_rows([predictions[i] for i in index], [captions[i] for i in index], policy=policy)
    resampled = aggregate({name: values[index] for name, values in rows.items()})
    assert resampled == pytest.approx(aggregate(again), rel=1e-12)


def test_the_example_of_the_readme():
    """Needs no synonyms, so that it comes out the same with and without WordNet."""
    text = (FOLDER / "README.md").read_text()
    load, compute = re.search(r"```python\n(.*?)(overlap\.compute.*?)```", text, re.DOTALL).groups()
    names = {}
    exec(load, names)
    result = eval(compute, names)
    assert result.pop("meteor_wordnet") is wordnet_available()
    printed = eval(re.search(r"```\n(\{.*?\})\n```", text, re.DOTALL)[1])
    assert printed.pop("meteor_wordnet") is False
    assert {k: round(v, 3) if isinstance(v, float) else v for k, v in result.items()} == printed


@needs_data
def test_the_control_of_the_readme():
    captions = [json.loads(line)["description"] for line in CHEBI.read_text().splitlines()]
    wrong = aggregate(score_rows(captions[1:] + captions[:1], captions))
    names = {"BLEU-2": "bleu2", "ROUGE-L": "rougeL", "METEOR": "meteor"}
    text = (FOLDER / "README.md").read_text()
    for title, key in names.items():
        assert f"{title} {wrong[key]:.2f}" in text


@pytest.mark.slow
def test_the_folder_works_on_its_own(tmp_path: Path):
    """As a Space: in another place, from another working directory, without this checkout."""
    script = (
        "import evaluate\n"
        f"module = evaluate.load({str(FOLDER)!r})\n"
        "result = module.compute(predictions=['an acid'], references=['an acid'],"
        " policy='published')\n"
        "assert result['rouge1'] == 1 and result['policy'] == 'published', result\n"
    )
    run_without_package(script, cwd=tmp_path, HF_HOME=str(tmp_path))


def test_the_space_starts(monkeypatch: pytest.MonkeyPatch):
    """With a stand-in for gradio that fills in the form once."""
    results = []

    class Interface:
        def __init__(self, fn, **settings):
            self.compute = fn

        def launch(self):
            form = pd.DataFrame({"predictions": ['"an acid"'], "references": ['"an acid"']})
            results.append(self.compute(form))

    gradio = ModuleType("gradio")
    gradio.Interface = Interface
    gradio.inputs = gradio.outputs = type("Parts", (), {"Dataframe": dict, "Textbox": dict})
    monkeypatch.setitem(sys.modules, "gradio", gradio)
    exec((FOLDER / "app.py").read_text(), {"__file__": str(FOLDER / "app.py")})
    assert results[0]["rouge1"] == 1


def test_what_the_space_says_of_itself():
    module = evaluate.load(str(FOLDER))
    assert list(module.features) == ["predictions", "references"]
    assert "METEOR" in module.description
    for key in aggregate(score_rows(["a"], ["a"])):
        assert key in module.inputs_description
