# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Validation questions that are answered and scored while a run goes on."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from processes import run_processes
from test_finetune import load_adapter, recipe  # noqa: F401  (a fixture)
from test_monitors import change, history
from test_qm9 import small_qm9  # noqa: F401  (a fixture)
from transformers import TrainingArguments

from eval.generation import answer_batch
from modeling_mora import MoraForCausalLM, MoraProcessor
from modeling_mora.tasks_mora import get_task
from training.argument_checks import check_best_metric, check_monitors
from training.arguments import DataArguments, ModelArguments
from training.finetune import main, make_scorer
from training.scoring import (
    AnswerScorer,
    NoSuchScoreError,
    choose_rows,
    keep_answers,
    possible_scores,
    score_answers,
)

ROWS = [
    {"property": "gap", "answer": "0.2471", "prompt": "Gap of CCO?", "molecule": "CCO"},
    {"property": "gap", "answer": "0.1", "prompt": "And that of benzene?", "molecule": "c1ccccc1"},
    {"property": "homo", "answer": "-0.3", "prompt": "Gap of nothing?", "molecule": None},
]


class Tasks:
    """What the scores need of a processor: tasks, here with properties of two units."""

    tasks = {
        "property_prediction": {
            "properties": {
                "gap": {"description": "gap", "unit": "hartree"},
                "homo": {"description": "HOMO", "unit": "hartree"},
                "logp": {"description": "logP"},
            }
        }
    }
    task = MoraProcessor.task


def question(task: str, answer: str, text: str | None, name: str | None = None) -> dict[str, Any]:
    """A row that was answered, and read as its task reads it."""
    row = {"task": task, "property": name, "answer": answer}
    return row | {"read": None if text is None else Tasks().task(task).parse(text, name)}


@pytest.mark.parametrize(
    ("answered", "scores"),
    [
        # Numbers: the error over those that could be read.
        (
            [
                question("property_prediction", "0.25", "0.35", "gap"),
                question("property_prediction", "-0.25", "-0.45 hartree", "homo"),
                question("property_prediction", "0.25", "0.3 or 0.4", "gap"),
                question("property_prediction", "0.25", None, "gap"),
            ],
            {"eval_mae": 0.15, "eval_read": 0.5},
        ),
        (
            [question("property_prediction", "1", "?", "gap")],
            {"eval_mae": math.inf, "eval_read": 0},
        ),
        (
            [
                question("property_prediction", "0.25", "0.35", "gap"),
                question("property_prediction", "3", "1", "logp"),
            ],
            {"eval_mae_gap": 0.1, "eval_mae_logp": 2, "eval_read": 1},
        ),
        # Molecules: any spelling and order of components, but stereo counts.
        (
            [
                question("retrosynthesis", "CCO.CC(=O)O", "OC(C)=O.OCC"),
                question("retrosynthesis", "CCO", "CC=O"),
                question("forward_reaction_prediction", "C[C@H](N)C(=O)O", "CC(N)C(=O)O"),
                question("reagent_prediction", "CCO", "C(C"),
            ],
            {"eval_exact_match": 0.25, "eval_read": 0.75},
        ),
        (
            [
                question("property_classification", "Yes", "yes."),
                question("property_classification", "No", "Yes"),
                question("property_classification", "No", "Perhaps"),
                question("property_classification", "No", "No"),
            ],
            {"eval_accuracy": 0.5, "eval_read": 0.75},
        ),
        (
            [
                question("molecule_captioning", "An alcohol.", " An alcohol.\n"),
                question("molecule_qa", "An acid", "an acid"),
                question("molecule_qa", "An acid", ""),
                question("property_classification", "No", "No"),
            ],
            {"eval_same_text": pytest.approx(1 / 3), "eval_accuracy": 1, "eval_read": 0.75},
        ),
    ],
)
def test_scores(answered: list[dict], scores: dict[str, float]):
    assert score_answers(answered, Tasks()) == {
        name: value if not isinstance(value, float) else pytest.approx(value)
        for name, value in scores.items()
    }


def test_rows_of_all_tasks():
    tasks = ["a", "a", "a", "a", "b", "b", "c"]
    dataset = Dataset.from_list([{"task": task, "id": i} for i, task in enumerate(tasks)])
    assert [row["id"] for row in choose_rows(dataset, 5)] == [0, 1, 4, 5, 6]
    assert [row["id"] for row in choose_rows(dataset, 1)] == [0]
    assert [row["id"] for row in choose_rows(dataset, 50)] == list(range(7))


@pytest.fixture
def scorer(processor: MoraProcessor, tmp_path: Path) -> AnswerScorer:
    rows = [row | {"task": "property_prediction"} for row in ROWS]
    return AnswerScorer(rows, processor, graphs=True, batch_size=2, folder=tmp_path)


def test_answers_are_those_of_the_evaluation(
    scorer: AnswerScorer,
    processor: MoraProcessor,
    make_model: Callable[..., MoraForCausalLM],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
):
    """Text and molecule go in as in `eval.benchmark`, in batches of whatever length."""
    model = make_model().train()
    state = torch.get_rng_state()
    scores = scorer.score(model, 7, Accelerator(cpu=True))
    assert model.training and torch.equal(torch.get_rng_state(), state)
    assert list(scores) == scorer.metrics == ["eval_mae", "eval_read"]
    lines = [json.loads(line) for line in (tmp_path / "scored_answers.jsonl").open()]
    assert [(line["step"], line["row"]) for line in lines] == [(7, 0), (7, 1), (7, 2)]
    expected = answer_batch(
        model.eval(),
        processor,
        [row["prompt"] for row in ROWS],
        [row["molecule"] for row in ROWS],
        scorer.max_new_tokens,
    )
    assert [line["text"] for line in lines] == [answer.text for answer in expected]
    assert len({line["text"] for line in lines}) > 1
    assert repr(ROWS[1]["prompt"]) in capsys.readouterr().out


def test_answers_that_are_cut_off_are_not_read(
    scorer: AnswerScorer, make_model: Callable[..., MoraForCausalLM], monkeypatch
):
    """The model writes `0.2` again and again; only where it ends there is a number."""
    model = make_model()
    number = scorer.processor.tokenizer("0.2", add_special_tokens=False)["input_ids"]
    end = scorer.processor.tokenizer.eos_token_id

    def generate(input_ids: torch.Tensor, **kwargs: object) -> torch.Tensor:
        endings = [[end], number[:1], [end]][: len(input_ids)]
        return torch.cat([input_ids, torch.tensor([number + end for end in endings])], dim=1)

    monkeypatch.setattr(model, "generate", generate)
    scores = scorer.score(model, 1, Accelerator(cpu=True))
    assert scores == {
        "eval_mae": pytest.approx((0.0471 + 0.5) / 2),
        "eval_read": pytest.approx(2 / 3),
    }


def test_answers_after_the_checkpoint_are_replaced(tmp_path: Path):
    row = {"row": 0, "task": "t", "property": None, "prompt": "?", "molecule": None, "answer": "ä"}
    path = tmp_path / "answers.jsonl"
    for step, text in [(2, "a"), (4, "b"), (6, "c"), (4, "d")]:
        keep_answers(path, step, [row | {"text": text, "read": None}])
    kept = [json.loads(line) for line in path.open(encoding="utf-8")]
    assert [(line["step"], line["text"]) for line in kept] == [(2, "a"), (4, "d")]
    assert "ä" in path.read_text(encoding="utf-8")


@pytest.mark.usefixtures("small_qm9")
def test_scoring_changes_nothing_of_the_training(recipe: Path, tmp_path: Path):  # noqa: F811
    """With dropout, so that a single random number more or less would show."""
    graph_config = {"hidden_size": 16, "num_layers": 1, "dropout": 0.3}
    change(recipe, eval_strategy="steps", eval_steps=1, graph_config=graph_config, max_steps=6)
    main([str(recipe)])
    main([str(recipe), "--score_rows", "2", "--output_dir", str(tmp_path / "scored")])
    plain, scored = load_adapter(tmp_path / "run"), load_adapter(tmp_path / "scored")
    assert plain.keys() == scored.keys()
    assert all(torch.equal(plain[key], scored[key]) for key in plain)
    assert [entry["step"] for entry in history(tmp_path / "scored", "eval_mae")] == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]
    assert not (tmp_path / "run" / "scored_answers.jsonl").exists()


@pytest.mark.usefixtures("small_qm9")
def test_best_model_by_its_answers(
    recipe: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """The one with the smallest error is kept, although greater is better by default."""
    # The first is asked for the names of the scores.
    errors = iter([0, math.inf, 0.3, 0.1, 0.2])
    monkeypatch.setattr("training.scoring.score_answers", lambda *args: {"eval_mae": next(errors)})
    change(recipe, eval_strategy="steps", eval_steps=1, save_steps=1, score_rows=1)
    main([str(recipe), "--load_best_model_at_end", "--metric_for_best_model", "eval_mae"])
    run = tmp_path / "run"
    state = json.loads((run / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(run / "checkpoint-3")
    best = load_adapter(run / "checkpoint-3")
    assert all(torch.equal(tensor, best[key]) for key, tensor in load_adapter(run).items())


@pytest.mark.usefixtures("small_qm9")
def test_run_that_is_gone_on_with_repeats_no_answers(recipe: Path, tmp_path: Path):  # noqa: F811
    change(recipe, eval_strategy="steps", eval_steps=1, score_rows=2)
    main([str(recipe)])
    run = tmp_path / "run"
    whole = (run / "scored_answers.jsonl").read_text()
    assert [json.loads(line)["step"] for line in whole.splitlines()] == [1, 1, 2, 2, 3, 3, 4, 4]
    shutil.rmtree(run / "checkpoint-4")
    main([str(recipe), "--resume_from_checkpoint", "true"])
    assert (run / "scored_answers.jsonl").read_text() == whole


@pytest.mark.usefixtures("small_qm9")
@pytest.mark.parametrize("method", ["lora", "graph_prefix", "full_finetune"])
def test_other_methods(method: str, recipe: Path, tmp_path: Path):  # noqa: F811
    change(recipe, eval_strategy="steps", eval_steps=4, score_rows=2, gradient_checkpointing=True)
    main([str(recipe), "--method", method, "--save_strategy", "no"])
    assert len((tmp_path / "run" / "scored_answers.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"score_rows": -1}, "score_rows=-1: give a number of rows"),
        ({"score_rows": 2}, "score_rows=2 rows are scored at each evaluation, of which eval_str"),
    ],
)
def test_settings_that_cannot_work(recipe: Path, settings: dict, message: str):  # noqa: F811
    change(recipe, **settings)
    with pytest.raises(SystemExit, match=message):
        main([str(recipe)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric_for_best_model": "eval_mae"}, "=eval_mae is a score .* score_rows=0 gives none"),
        (
            {"metric_for_best_model": "f1"},
            "=f1: there is eval_loss, and with score_rows eval_mae, eval_read",
        ),
        (
            {"metric_for_best_model": "exact_match", "score_rows": 1},
            "=exact_match: there is eval_loss, eval_mae, eval_read",
        ),
        (
            {"metric_for_best_model": "loss", "eval_strategy": "no"},
            "=loss is of an evaluation, of which eval_strategy=no has none",
        ),
    ],
)
def test_best_score_that_no_evaluation_logs(
    settings: dict,
    message: str,
    recipe: Path,  # noqa: F811
):
    change(recipe, **({"eval_strategy": "steps"} | settings))
    with pytest.raises(SystemExit, match=f"metric_for_best_model{message}"):
        main([str(recipe)])


@pytest.mark.parametrize(
    ("tasks", "scores"),
    [
        ({"property_prediction": {}}, ["eval_mae", "eval_read"]),
        (Tasks.tasks, ["eval_mae", "eval_mae_gap", "eval_mae_homo", "eval_mae_logp", "eval_read"]),
        (
            {"retrosynthesis": {}, "property_classification": {}, "molecule_captioning": {}},
            ["eval_accuracy", "eval_exact_match", "eval_read", "eval_same_text"],
        ),
    ],
)
def test_scores_that_tasks_may_have(tasks: dict, scores: list[str]):
    assert possible_scores(get_task(name, **values) for name, values in tasks.items()) == scores


def test_best_score_of_prepared_data(tmp_path: Path, processor: MoraProcessor):
    """Their tasks say early what there may be, and the rows that are chosen what there is."""
    (tmp_path / "prepared.json").write_text(json.dumps({"tasks": Tasks.tasks}))
    data_args = DataArguments(prepared=str(tmp_path), score_rows=2)
    training_args = TrainingArguments(
        output_dir=tmp_path, eval_strategy="steps", metric_for_best_model="mae_logp", use_cpu=True
    )
    check_best_metric(data_args, training_args)
    tasked = MoraProcessor(processor.feature_extractor, processor.tokenizer, tasks=Tasks.tasks)
    rows = Dataset.from_list([row | {"task": "property_prediction"} for row in ROWS])
    data = SimpleNamespace(splits={"validation": rows})
    with pytest.raises(
        NoSuchScoreError, match="the 2 validation rows .* have eval_loss, eval_mae, eval"
    ):
        make_scorer(ModelArguments(), data_args, training_args, data, tasked)
    training_args.metric_for_best_model = "accuracy"
    with pytest.raises(ValueError, match="=accuracy: there is eval_loss, eval_mae, eval_mae_gap"):
        check_best_metric(data_args, training_args)


@pytest.mark.parametrize(
    ("name", "greater"), [("eval_mae", False), ("mae_gap", False), ("exact_match", True)]
)
def test_which_score_is_better(name: str, greater: bool, tmp_path: Path):
    training_args = TrainingArguments(
        output_dir=tmp_path, eval_strategy="steps", metric_for_best_model=name, use_cpu=True
    )
    check_monitors(DataArguments(score_rows=1), training_args)
    assert training_args.greater_is_better is greater


@pytest.mark.slow
def test_two_processes_share_the_rows(
    recipe: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    """Three batches for two processes: the answers are those of one process, each there once."""
    change(
        recipe,
        eval_strategy="steps",
        eval_steps=2,
        max_steps=2,
        validation_molecules=6,
        score_rows=5,
        per_device_eval_batch_size=2,
        learning_rate=1e-9,
        logging_steps=1,
    )
    alone, together = tmp_path / "alone", tmp_path / "together"
    main([str(recipe), "--output_dir", str(alone)])
    printed = {alone: capsys.readouterr().out}
    script = tmp_path / "script.py"
    script.write_text("from training.finetune import main\nmain()\n")
    flags = ["--ddp_backend", "gloo", "--output_dir", together]
    printed[together] = run_processes("multi_gpu", script, recipe, *flags)
    for folder, text in printed.items():
        assert text.count("validation loss") == text.count("step 1/2  loss") == 1
        assert len(history(folder, "eval_mae")) == 1
        assert (folder / "training_curves.png").exists()
    answers = (together / "scored_answers.jsonl").read_text()
    assert answers == (alone / "scored_answers.jsonl").read_text()
    assert len(answers.splitlines()) == 5


@pytest.mark.parametrize(
    "launched",
    [
        {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"},
        {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"},
    ],
    ids=["fsdp2", "zero3"],
)
def test_weights_that_are_cut_up(
    launched: dict[str, str],
    recipe: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
):
    """Refused by what `accelerate launch` says in the environment."""
    if "ACCELERATE_USE_DEEPSPEED" in launched:
        pytest.importorskip("deepspeed")
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    change(recipe, eval_strategy="steps", score_rows=2)
    with pytest.raises(SystemExit, match="score_rows=2 needs whole weights in each process"):
        main([str(recipe)])
