# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The prepare command: settings, report, the folder, and training on it."""

import json
from pathlib import Path

import datasets
import pytest
import yaml
from datasets import Dataset, load_from_disk
from test_finetune import TINY_MODEL
from test_qm9 import small_qm9  # noqa: F401  (a fixture)

from modeling_mora import MoraProcessor
from modeling_mora.tasks_mora import Property, get_task
from training import finetune, prepare
from training.arguments import parse_arguments
from training.data import lengths, sources
from training.data.build import COLUMNS
from training.data.lengths import measure
from training.data.prepared import load_prepared, merge_tasks, read_info
from training.data.settings import read_settings
from training.data.source import RawExample, Source
from training.data.sources import open_source
from training.tokenization import tokenize_example

pytestmark = pytest.mark.usefixtures("small_qm9", "cache")
PNG = b"\x89PNG"
DATA_RECIPES = sorted(Path(__file__).parents[1].glob("training/recipes/data/*.yaml"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def recipe(tmp_path: Path, tiny_base: Path) -> dict:
    """A recipe with a data section; one molecule of QM9's 19 cannot be read."""
    return TINY_MODEL | {
        "base": str(tiny_base),
        "max_length": 150,
        "learning_rate": 1e-3,
        "per_device_train_batch_size": 2,
        "max_steps": 2,
        "save_steps": 2,
        "output_dir": str(tmp_path / "run"),
        "use_cpu": True,
        "report_to": "none",
        "prepared": str(tmp_path / "data"),
        "data": {
            "sources": [{"source": "qm9", "properties": ["gap", "homo"]}],
            "split": {"method": "random", "sizes": {"validation": 2, "test": 3}},
            "max_rejected": 0.1,
        },
    }


def write(recipe: dict, tmp_path: Path) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return str(path)


def read_text(row: dict) -> list[RawExample]:
    return [RawExample(row["id"], row["molecule"], row["answer"])]


def captions(number: int, streaming: bool = False, answer: str = "A chain.") -> Source:
    rows = [{"id": str(n), "molecule": "C" * n, "answer": answer} for n in range(1, number + 1)]
    table = Dataset.from_list(rows)
    train = table.to_iterable_dataset() if streaming else table
    return Source("captions", "molecule_captioning", {"train": train}, read_text, {}, "smiles")


def test_a_prepared_folder_holds_all(recipe: dict, tmp_path: Path, capsys):
    prepare.main([write(recipe, tmp_path)])
    out = capsys.readouterr().out
    folder = tmp_path / "data"
    assert {path.name for path in folder.iterdir()} == {
        *("dataset_dict.json", "train", "validation", "test"),
        *("prepared.json", "rejected.jsonl", "lengths.png"),
    }
    data = load_from_disk(str(folder))
    assert [len(set(data[split]["molecule"])) for split in data] == [12, 2, 3]
    assert sum(map(len, data.values())) == 2 * 18  # ethanol is there twice
    assert tuple(data["train"].column_names) == COLUMNS
    info = read_info(folder)
    assert info["rows"] == {split: len(rows) for split, rows in data.items()}
    task = get_task("property_prediction", **info["tasks"]["property_prediction"])
    assert list(task.properties) == ["gap", "homo"]
    assert isinstance(task.properties["gap"], Property)
    assert info["settings"]["max_length"] == 150  # the recipe's own
    assert {"rdkit", "datasets"} <= info["versions"].keys()
    (rejected,) = (folder / "rejected.jsonl").read_text().splitlines()
    assert json.loads(rejected)["value"] == "c1cccc"
    assert (folder / "lengths.png").read_bytes().startswith(PNG)
    for part in ("Leaks", "validation", "property_prediction", "SMILES: ", str(folder)):
        assert part in out.replace("\n", "")
    assert not list(tmp_path.glob("*.rejected.jsonl")) + list(tmp_path.glob(".data*"))


def test_the_same_settings_give_the_same_data(recipe: dict, tmp_path: Path):
    path = write(recipe, tmp_path)
    for name in ("one", "two"):
        prepare.main([path, "--output_dir", str(tmp_path / name)])
    one, two = (read_info(tmp_path / name)["fingerprints"] for name in ("one", "two"))
    assert one == two


def test_too_long_examples_are_rejected_not_cut(recipe: dict, tmp_path: Path):
    recipe["max_length"] = 62
    recipe["data"]["max_rejected"] = 0.5
    prepare.main([write(recipe, tmp_path)])
    data = load_prepared(tmp_path / "data")
    lines = (tmp_path / "data" / "rejected.jsonl").read_text().splitlines()
    long = [entry for entry in map(json.loads, lines) if "too long" in entry["reason"]]
    assert len(long) > 2
    assert sum(data.info["rows"].values()) == 2 * 18 - len(long)
    tokenizer = prepare.AutoTokenizer.from_pretrained(recipe["base"])
    for row in data.splits["train"]:
        tokenize_example(row["prompt"], row["answer"], tokenizer, 62)


def test_failed_runs_leave_nothing_but_the_rejections(recipe: dict, tmp_path: Path):
    recipe["data"]["max_rejected"] = 0.01
    with pytest.raises(SystemExit, match=r"max_rejected=0\.01.*SMILES.*data\.rejected\.jsonl"):
        prepare.main([write(recipe, tmp_path)])
    assert not (tmp_path / "data").exists()
    assert "c1cccc" in (tmp_path / "data.rejected.jsonl").read_text()
    recipe["data"]["strict"] = True
    with pytest.raises(SystemExit, match="'c1cccc'.*strict"):
        prepare.main([write(recipe, tmp_path)])


def test_interrupted_writing_leaves_the_old_folder(
    recipe: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = write(recipe, tmp_path)
    prepare.main([path])
    before = (tmp_path / "data" / "prepared.json").read_text()

    def fail(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "save_histograms", fail)
    with pytest.raises(KeyboardInterrupt):
        prepare.main([path, "--overwrite"])
    assert (tmp_path / "data" / "prepared.json").read_text() == before
    assert not list(tmp_path.glob(".data*"))


def test_nothing_else_is_overwritten(recipe: dict, tmp_path: Path):
    path = write(recipe, tmp_path)
    other = tmp_path / "data"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    for flags in ([], ["--overwrite"]):
        with pytest.raises(SystemExit, match="holds something that is no prepared data"):
            prepare.main([path, *flags])
    (other / "thesis.txt").unlink()
    prepare.main([path])
    with pytest.raises(SystemExit, match="add --overwrite"):
        prepare.main([path])
    recipe["data"]["split"]["sizes"] = {"test": 5}
    prepare.main([write(recipe, tmp_path), "--overwrite"])
    assert "validation" not in read_info(other)["rows"]


@pytest.mark.parametrize("path", DATA_RECIPES, ids=lambda path: path.stem)
def test_shipped_data_recipes_are_valid(path: Path):
    settings, _ = read_settings(path)
    assert all(entry["source"] in sources.SOURCES for entry in settings.sources)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sorces": []}, "unknown key 'sorces' in the data section. Did you mean 'sources'"),
        ({"sources": []}, "`sources` is missing"),
        ({"sources": ["qm9"]}, "entry 1 of sources: write `- source: NAME`"),
        ({"sources": [{"source": "qm8"}]}, "'qm8' is unknown.*Did you mean 'qm9'"),
        ({"sources": [{"source": "qm9", "target": "gap"}]}, "no setting 'target'.*properties"),
        ({"sources": [{"source": "qm9", "properties": ["mass"]}]}, "choose from"),
        ({"num_proc": "two"}, "num_proc: 'two' is no int"),
        ({"strict": "yes please"}, "strict: 'yes please' is no bool"),
        ({"max_length": 0}, "max_length: 0: give at least 1"),
        ({"max_rejected": 2}, "max_rejected=2: give a share"),
        ({"split": {"how": "random"}}, "Source 'qm9', split .*how"),
        ({"split": {"method": "official"}}, "no official splits"),
        ({"mixing": {"heat": 2}}, "mixing .*heat"),
        ({"notation": "names"}, "notation='names': use one of smiles, selfies"),
        ({"phrasings": "all"}, "phrasings='all'"),
    ],
)
def test_settings_that_cannot_work(recipe: dict, tmp_path: Path, change: dict, message: str):
    recipe["data"] |= change
    with pytest.raises(SystemExit, match=message):
        prepare.main([write(recipe, tmp_path)])
    assert [path.name for path in tmp_path.glob("*data*")] in ([], ["data.rejected.jsonl"])


def test_several_sources_mixed_and_leaks_between_them(
    recipe: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setitem(sources.SOURCES, "captions", f"{__name__}:captions")
    recipe["data"]["sources"] = [
        {"source": "qm9", "properties": "gap", "weight": 1},
        {"source": "captions", "number": 30, "weight": 1, "split": {"method": "official"}},
    ]
    prepare.main([write(recipe, tmp_path)])
    data = load_prepared(tmp_path / "data")
    counts = data.info["sources"]["train"]
    assert min(counts.values()) > 0.3 * sum(counts.values())
    assert set(data.splits["test"]["source"]) == {"qm9"}
    assert set(data.tasks) == {"property_prediction", "molecule_captioning"}
    assert "After mixing" in capsys.readouterr().out
    # Alkanes of QM9's test split are among the captions to train on.
    with pytest.raises(SystemExit, match="share .* × molecule"):
        prepare.main([write(recipe, tmp_path), "--overwrite", "--fail-on-leak"])
    recipe["data"] |= {"drop_leaks": True, "max_rejected": 0.5}
    prepare.main([write(recipe, tmp_path), "--overwrite", "--fail-on-leak"])
    fewer = load_prepared(tmp_path / "data")
    assert set(fewer.splits["test"]["molecule"]) == set(data.splits["test"]["molecule"])
    lines = (tmp_path / "data" / "rejected.jsonl").read_text().splitlines()
    dropped = [row for row in map(json.loads, lines) if row["reason"].endswith("in test too")]
    assert dropped and {row["split"] for row in dropped} <= {"train", "validation"}
    del recipe["data"]["sources"][1]["weight"]
    with pytest.raises(SystemExit, match="'captions' has no weight"):
        prepare.main([write(recipe, tmp_path), "--overwrite"])
    recipe["data"]["sources"][1]["streaming"] = True
    with pytest.raises(SystemExit, match="'captions' is a stream"):
        prepare.main([write(recipe, tmp_path), "--overwrite"])


def test_notation_reaches_examples_and_processor(recipe: dict, tmp_path: Path):
    recipe["data"]["notation"] = "selfies"
    recipe["max_length"] = 300
    prepare.main([write(recipe, tmp_path)])
    data = load_prepared(tmp_path / "data")
    assert data.tasks["property_prediction"]["notation"] == "selfies"
    row = data.splits["train"][0]
    task = get_task(row["task"], **data.tasks[row["task"]])
    assert row["prompt"] == task.question(row["molecule"], row["property"])
    assert "[C]" in row["prompt"]


def test_tasks_of_sources_are_joined():
    def source(properties: dict, **settings) -> Source:
        settings |= {"properties": {name: Property(*value) for name, value in properties.items()}}
        return Source("s", "property_prediction", {}, read_text, settings)

    joined = merge_tasks(
        [source({"gap": ("gap", "eV")}), source({"esol": ("log S",), "gap": ("gap", "eV")})]
    )
    assert list(joined["property_prediction"]["properties"]) == ["gap", "esol"]
    with pytest.raises(ValueError, match="properties 'gap' is .*eV.* and .*hartree"):
        merge_tasks([source({"gap": ("gap", "eV")}), source({"gap": ("gap", "hartree")})])
    with pytest.raises(ValueError, match="notation is None in one source and 'selfies'"):
        merge_tasks([source({"a": ("a",)}), source({"b": ("b",)}, notation="selfies")])


def test_lengths_are_those_of_training(tokenizer):
    rows = [
        {"task": "molecule_qa", "prompt": f"{'why ' * n}?", "answer": "so " * (n % 4) + "it is"}
        for n in range(20)
    ]
    data = Dataset.from_list([row | {"molecule": "C[C@H](N)O"} for row in rows])
    expected = [
        len(tokenize_example(row["prompt"], row["answer"], tokenizer, 10_000)["input_ids"])
        for row in rows
    ]
    measured = measure(data, tokenizer)
    assert measured["tokens"].tolist() == expected
    assert set(measured["atoms"]) == {4}
    assert lengths.measure(data.select([]), tokenizer).empty


def test_missing_settings_of_a_source(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sources.SOURCES, "captions", f"{__name__}:captions")
    with pytest.raises(ValueError, match="'captions' needs the setting 'number'"):
        open_source("captions")


def test_training_on_prepared_data(recipe: dict, tmp_path: Path):
    path = write(recipe, tmp_path)
    prepare.main([path])
    finetune.main([path, "--eval_strategy", "steps", "--eval_steps", "1"])
    run = tmp_path / "run"
    info = read_info(tmp_path / "data")
    for folder in (run, run / "checkpoint-2"):
        settings = json.loads((folder / "data.json").read_text())
        assert settings == {
            "prepared": str(tmp_path / "data"),
            "fingerprints": info["fingerprints"],
        }
        processor = MoraProcessor.from_pretrained(folder)
        assert list(processor.task("property_prediction").properties) == ["gap", "homo"]
    history = json.loads((run / "trainer_state.json").read_text())["log_history"]
    assert any("eval_loss" in entry for entry in history)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--prepared", "nowhere"], "'nowhere' is no folder of prepared data.*training.prepare"),
        (["--train_molecules", "8"], "train_molecules=8 is for QM9, but prepared="),
        (["--properties", "homo"], r"properties=\['homo'\] is for QM9"),
    ],
)
def test_training_settings_that_cannot_work(
    recipe: dict, tmp_path: Path, flags: list[str], message: str
):
    path = write(recipe, tmp_path)
    prepare.main([path])
    with pytest.raises(ValueError, match=message):
        parse_arguments([path, *flags])


def test_validation_needs_a_split_and_changed_data_are_noticed(recipe: dict, tmp_path: Path):
    recipe["data"]["split"]["sizes"] = {"test": 3}
    path = write(recipe, tmp_path)
    prepare.main([path])
    with pytest.raises(ValueError, match="needs a validation split.*only train, test"):
        parse_arguments([path, "--eval_strategy", "steps"])
    file = tmp_path / "data" / "prepared.json"
    info = json.loads(file.read_text())
    info["fingerprints"]["test"] = "other"
    file.write_text(json.dumps(info))
    with pytest.raises(ValueError, match="'test' .* is not what its prepared.json describes"):
        load_prepared(tmp_path / "data")
