# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The benchmark command on a tiny random model: all tasks, controls, scores, bad input."""

import json
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
import yaml
from sklearn.metrics import roc_auc_score
from test_qm9 import small_qm9  # noqa: F401  (a fixture)

from eval import asking, benchmark
from eval.generation import Answer, answer_batch, load_model, load_processor
from eval.metrics.caption_overlap.overlap import wordnet_available
from modeling_mora import MoraForCausalLM, MoraProcessor
from training import prepare
from training.arguments import ModelArguments
from training.data.qm9 import load_qm9
from training.methods.models import make_model

QM9 = {"properties": ["homo", "gap"], "train": 8, "validation": 1, "test": 3, "seed": 0}
TINY = {"rank": 2, "target_modules": ["q_proj", "down_proj"]}
CONTROLS = "no_molecule,shuffled_molecule,no_string,base_model"
# Product, reactants and class of reactions that exist.
REACTIONS = [
    ("CC(=O)OCC", "CC(=O)O.CCO", 2),
    ("CC(=O)NC", "CC(=O)Cl.CN", 2),
    ("CCOCC", "CCO.CCBr", 1),
    ("CCN(C)C", "CCBr.CNC", 1),
    ("OCc1ccccc1", "O=Cc1ccccc1", 7),
    ("O=Cc1ccccc1", "OCc1ccccc1", 8),
]
LABELS = [("CCO", 1, 0), ("CCN", 0, 1), ("CCC", 1, ""), ("CCCl", 0, 1), ("CCF", 1, 0), ("C", 0, 1)]

pytestmark = pytest.mark.usefixtures("small_qm9")


@pytest.fixture
def checkpoint(
    tmp_path: Path, make_model: Callable[..., MoraForCausalLM], processor: MoraProcessor
) -> Path:
    """A saved model with the settings of its data, as training leaves it."""
    path = tmp_path / "model"
    make_model(**TINY).save_pretrained(path)
    processor.save_pretrained(path)
    (path / "data.json").write_text(json.dumps(QM9))
    return path


@pytest.fixture
def prepared(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Prepared data of three tasks; the same rows in train and test."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    reactions = tmp_path / "reactions.jsonl"
    with reactions.open("w") as file:
        for number, (product, reactants, kind) in enumerate(REACTIONS):
            row = {"id": f"r{number}", "product": product, "reactants": reactants}
            file.write(json.dumps(row | {"reaction_class": kind}) + "\n")
    tables = {"label": ["smiles,toxic,soluble"], "caption": ["smiles,text"]}
    for smiles, *labels in LABELS:
        tables["label"].append(",".join(map(str, [smiles, *labels])))
        tables["caption"].append(f"{smiles},A small molecule of {len(smiles)} letters.")
    for name, lines in tables.items():
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")

    def splits(name: str) -> dict[str, str]:
        return dict.fromkeys(("train", "test"), str(tmp_path / name))

    def labelled(name: str) -> dict:
        return {
            "source": "table",
            "name": "tox",
            "data": splits("label.csv"),
            "task": "property_classification",
            "molecule": "smiles",
            "answer": name,
            "options": {"label": name},
            "labels": {name: f"be {name}"},
        }

    settings = {
        "data": {
            "base": str(tiny_base),
            "max_length": 300,
            "max_rejected": 0.2,
            "sources": [
                {"source": "uspto", "task": "retrosynthesis", "data": splits("reactions.jsonl")},
                labelled("toxic"),
                labelled("soluble"),
                {
                    "source": "table",
                    "name": "captions",
                    "data": splits("caption.csv"),
                    "task": "molecule_captioning",
                    "molecule": "smiles",
                    "answer": "text",
                },
            ],
        }
    }
    path = tmp_path / "data.yaml"
    path.write_text(yaml.safe_dump(settings))
    prepare.main([str(path), "--output_dir", str(tmp_path / "data")])
    return tmp_path / "data"


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None, bool]]:
    """Answers instead of a random model's: numbers with the adapter on, words with it off.

    The list holds what was asked: (prompt, molecule, adapter on or off).
    """
    asked = []

    def answer(model, processor, prompts, molecules, max_new_tokens, use_adapter, **kwargs):
        asked.extend((*row, use_adapter) for row in zip(prompts, molecules, strict=True))
        return [Answer("0.3000" if use_adapter else "I do not know.", True) for _ in prompts]

    monkeypatch.setattr(asking, "answer_batch", answer)
    return asked


def run(checkpoint: Path, *flags: str) -> int:
    return benchmark.main(["--model", str(checkpoint), "--batch_size", "2", *flags])


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def entry(results: dict, **wanted: object) -> dict:
    (found,) = [e for e in results["scores"] if all(e[k] == v for k, v in wanted.items())]
    return found


def test_a_saved_model_is_scored_end_to_end(
    checkpoint: Path, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "scores"
    assert run(checkpoint, "--output_dir", str(output), "--controls", CONTROLS) == 0

    test = load_qm9(**QM9)["test"].to_list()
    lines = read_lines(output / "predictions.jsonl")
    assert [line["row"] for line in lines] == [*range(6)] * 5
    for line, row in zip(lines, test * 5, strict=True):
        assert line["reference"] == row["answer"]
        prompt = row["prompt"]
        if line["control"] == "no_string":
            prompt = prompt.replace(f" of {row['molecule']} in", " of this molecule in")
        assert line["prompt"] == prompt
        assert [line[key] for key in ("id", "property", "molecule")] == [
            row[key] for key in ("id", "property", "molecule")
        ]
    texts = {line["control"]: [] for line in lines}
    for line in lines:
        texts[line["control"]].append(line["text"])
    assert list(texts) == [None, *CONTROLS.split(",")]
    # A row without a molecule gets the untouched base model.
    assert texts["no_molecule"] == texts["base_model"]
    assert texts[None] not in (texts["base_model"], texts["shuffled_molecule"], texts["no_string"])
    # The question is the same for all molecules, so the graph alone can tell them apart.
    assert len(set(texts["no_string"])) > len(QM9["properties"])

    results = results_of(output)
    assert (results["policy"], results["method"], results["device"]) == ("strict", "mora", "cpu")
    assert results["base_model"] == str(tiny_base)
    assert results["data"]["name"] == "qm9" and results["seeds"]["split"] == 0
    assert (results["data"]["rows_in_split"], results["data"]["rows_scored"]) == (6, 6)
    assert {e["property"] for e in results["scores"]} == {"homo", "gap", None}
    printed = capsys.readouterr().out
    for title in ("training", "base", "shuffled", "95%", "strict", "hartree"):
        assert title in printed


def test_scores_are_those_of_the_answers(checkpoint: Path, scripted: list):
    assert run(checkpoint, "--controls", "base_model") == 0
    results = results_of(checkpoint / "benchmark")
    data = load_qm9(**QM9)
    pooled = []
    for name in ("homo", "gap"):
        true = [float(row["answer"]) for row in data["test"] if row["property"] == name]
        train = [float(row["answer"]) for row in data["train"] if row["property"] == name]
        errors = [abs(0.3 - t) for t in true]
        pooled += errors
        ours = entry(results, property=name, control=None)["metrics"]
        assert ours["mae"]["value"] == pytest.approx(np.mean(errors))
        assert min(errors) <= ours["mae"]["low"] <= ours["mae"]["high"] <= max(errors)
        mean = entry(results, property=name, control="training_mean")["metrics"]
        assert mean["mae"]["value"] == pytest.approx(
            np.mean([abs(np.mean(train) - t) for t in true])
        )
        base = entry(results, property=name, control="base_model")["metrics"]
        assert base["mae"]["value"] is None and base["mae"]["low"] is None
        assert [m["parsed"]["value"] for m in (mean, base, ours)] == [1, 0, 1]
    together = entry(results, property=None, control=None)
    assert together["metrics"]["mae"]["value"] == pytest.approx(np.mean(pooled))
    assert (together["n"], together["unit"]) == (6, "hartree")


def test_a_number_that_was_cut_off_is_not_read(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        asking, "answer_batch", lambda m, p, prompts, *a, **k: [Answer("0.3", False)] * len(prompts)
    )
    assert run(checkpoint) == 0
    metrics = entry(results_of(checkpoint / "benchmark"), property="gap", control=None)["metrics"]
    assert metrics["parsed"]["value"] == 0


@pytest.mark.parametrize("numbers", ["greedy", "median"])
def test_numbers_alone_are_medians(
    checkpoint: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch, numbers: str
):
    asked = {}

    def answer(model, processor, prompts, *args, number_tokens, **kwargs):
        asked.update(dict.fromkeys(prompts, number_tokens is not None))
        return [Answer("0.3", True, 0.5)] * len(prompts)

    monkeypatch.setattr(asking, "answer_batch", answer)
    for data in ([], ["--data", str(prepared)]):
        output = checkpoint / f"benchmark{len(data)}"
        flags = [*data, "--numbers", numbers, "--output_dir", str(output)]
        assert run(checkpoint, *flags) == 0
        assert results_of(output)["decoding"]["numbers"] == numbers
        for line in read_lines(output / "predictions.jsonl"):
            is_number = line["task"] == "property_prediction"
            assert asked[line["prompt"]] == (is_number and numbers == "median")
    assert len(asked) > 20


def test_all_kinds_of_tasks_are_scored(checkpoint: Path, prepared: Path, tmp_path: Path):
    output = tmp_path / "scores"
    assert run(checkpoint, "--data", str(prepared), "--output_dir", str(output)) == 0
    results = results_of(output)
    lines = read_lines(output / "predictions.jsonl")
    assert {line["task"] for line in lines} == {
        *("retrosynthesis", "property_classification", "molecule_captioning")
    }
    reactions = [line for line in lines if line["task"] == "retrosynthesis"]
    assert [line["group"] for line in reactions] == [str(kind) for *_, kind in REACTIONS]
    found = entry(results, task="retrosynthesis")["metrics"]
    assert {"exact_match", "levenshtein", "validity", "bleu", "maccs", "n_valid"} <= found.keys()

    for label in ("toxic", "soluble"):
        asked = [line for line in lines if line["property"] == label]
        true = [line["reference"] == "Yes" for line in asked]
        assert len(asked) == (6 if label == "toxic" else 5)  # one label is a gap
        expected = roc_auc_score(true, [line["p_yes"] for line in asked])
        found = entry(results, property=label)["metrics"]["roc_auc"]["value"]
        assert found == pytest.approx(expected)
    over_labels = entry(results, task="property_classification", property=None)
    each = [entry(results, property=name)["metrics"]["roc_auc"] for name in ("toxic", "soluble")]
    mean = np.mean([score["value"] for score in each])
    assert over_labels["metrics"]["roc_auc"]["value"] == pytest.approx(mean)

    captions = entry(results, task="molecule_captioning")
    assert (captions["tokenizer"], captions["meteor_wordnet"]) == ("words", wordnet_available())
    assert {"bleu2", "bleu4", "rouge1", "rougeL", "meteor"} <= captions["metrics"].keys()


def test_the_whole_answer_scores_one(
    checkpoint: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Answers that are the references, so that every score must be perfect."""
    truth = {}
    make = benchmark.make_questions

    def remember(rows, *others):
        truth.update((row["prompt"], row["answer"]) for row in rows)
        return make(rows, *others)

    def answer(model, processor, prompts, *args, **kwargs):
        return [Answer(t := truth[p], True, {"Yes": 0.9}.get(t, 0.1)) for p in prompts]

    monkeypatch.setattr(benchmark, "make_questions", remember)
    monkeypatch.setattr(asking, "answer_batch", answer)
    assert run(checkpoint, "--data", str(prepared), "--output_dir", str(tmp_path / "s")) == 0
    for scored in results_of(tmp_path / "s")["scores"]:
        for metric, score in scored["metrics"].items():
            if metric.startswith("levenshtein"):
                assert score["value"] == 0
            elif metric == "meteor":  # rewards chunks, so a few words cannot reach 1
                assert score["value"] > 0.99
            elif metric not in ("n", "n_valid") and not metric.endswith("wordnet"):
                assert score["value"] == pytest.approx(1), (metric, scored)


def test_the_folder_of_prepared_data_must_be_as_it_was(
    checkpoint: Path, prepared: Path, scripted: list, capsys: pytest.CaptureFixture[str]
):
    fingerprints = json.loads((prepared / "prepared.json").read_text())["fingerprints"]
    settings = {"prepared": str(prepared), "fingerprints": fingerprints}
    (checkpoint / "data.json").write_text(json.dumps(settings))
    assert run(checkpoint, "--task", "molecule_captioning") == 0
    settings["fingerprints"] = fingerprints | {"train": "other"}
    (checkpoint / "data.json").write_text(json.dumps(settings))
    assert run(checkpoint) == 2
    assert "is not the data that" in capsys.readouterr().err


def test_a_batch_of_the_benchmark_is_answered_as_alone(checkpoint: Path):
    assert run(checkpoint) == 0
    model, processor = load_model(str(checkpoint)), load_processor(str(checkpoint))
    for line in read_lines(checkpoint / "benchmark" / "predictions.jsonl"):
        (alone,) = answer_batch(model, processor, [line["prompt"]], [line["molecule"]], 15)
        assert line["text"].startswith(alone.text) or alone.text.startswith(line["text"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--max_examples", "0"), "must be at least 1"),
        (("--batch_size", "0"), "must be at least 1"),
        (("--controls", "no_molecule,shuffled"), "--controls shuffled: use no_molecule"),
    ],
)
def test_bad_flags_are_refused(flags: tuple[str, str], message: str, capsys):
    with pytest.raises(SystemExit):
        benchmark.parse_arguments(["--model", "x", *flags])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("method", ["lora", "graph_prefix", "full_finetune"])
def test_checkpoints_of_the_other_methods(
    method: str, tiny_base: Path, processor: MoraProcessor, tmp_path: Path
):
    model_args = ModelArguments(method=method, base=str(tiny_base), target_modules=["q_proj"])
    make_model(model_args).save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "data.json").write_text(json.dumps(QM9))
    flags = ["--model", str(tmp_path / "model"), "--controls", CONTROLS]
    assert benchmark.main([*flags, "--output_dir", str(tmp_path / "scores")]) == 0
    results = json.loads((tmp_path / "scores" / "results.json").read_text())
    assert results["method"] == method
    assert results["base_model"] == str(tiny_base) and len(results["base_fingerprint"]) == 32


def test_a_folder_inside_the_current_one_is_shown_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert benchmark.shown_path(str(tmp_path / "runs" / "data")) == "runs/data"
    assert benchmark.shown_path(str(tmp_path.parent / "data")) == str(tmp_path.parent / "data")
    assert benchmark.shown_path("qm9") == "qm9"
