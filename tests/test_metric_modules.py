# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The metrics as `evaluate` modules: from any folder, without a network, and as Spaces."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import evaluate
import pytest
import yaml
from evaluate.utils.gradio import REGEX_YAML_BLOCK

ROOT = Path(__file__).parents[1]
METRICS = ROOT / "eval" / "metrics"
NAMES = ["fingerprint_similarity", "molecule_match", "property_regression", "property_roc_auc"]
SCORES = {
    "molecule_match": {
        *("exact_match", "exact_match_no_stereo", "exact_match_inchi", "levenshtein"),
        *("levenshtein_canonical", "bleu", "validity", "n", "n_valid", "policy", "notation"),
    },
    "fingerprint_similarity": {
        *("maccs", "rdk", "morgan", "maccs_invalid_zero", "rdk_invalid_zero"),
        *("morgan_invalid_zero", "n", "n_valid", "policy", "notation"),
    },
    "property_regression": {
        *("mae", "rmse", "r2", "spearman", "parsed", "n", "n_valid", "policy", "unit"),
    },
    "property_roc_auc": {"roc_auc", "n", "n_valid", "policy"},
}
INPUTS = {
    "molecule_match": (["OCC", "C1CC"], ["CCO", "CCO"]),
    "fingerprint_similarity": (["OCC", "C1CC"], ["CCO", "CCO"]),
    "property_regression": (["0.25", "?"], [0.25, 0.5]),
    "property_roc_auc": ([0.9, 0.1], [1, 0]),
}

# Runs the example of a README and then app.py, with nothing to reach and a stand-in for gradio that
# fills in the table and prints the scores.
SPACE = """
import doctest, json, runpy, socket, sys, types
from pathlib import Path

def refuse(*args):
    raise OSError("this run has no network")

socket.socket.connect = refuse
folder, columns = Path(sys.argv[1]), json.loads(sys.argv[2])
text = folder.joinpath("README.md").read_text(encoding="utf-8")
example = text.split("```python\\n")[1].split("```")[0]
assert f'"eval/metrics/{folder.name}"' in example
example = example.replace(f'"eval/metrics/{folder.name}"', repr(str(folder)))
test = doctest.DocTestParser().get_doctest(example, {}, folder.name, "README.md", 0)
result = doctest.DocTestRunner().run(test)
assert result.attempted >= 4, result
if result.failed:
    sys.exit(1)

class Interface:
    def __init__(self, fn, inputs, article, **kwargs):
        self.fn, self.article = fn, article

    def launch(self):
        import pandas
        assert self.article.lstrip().startswith("# "), self.article[:80]
        print(json.dumps(self.fn(pandas.DataFrame(columns))))

def anything(**kwargs):
    return kwargs

gradio = types.ModuleType("gradio")
gradio.Interface = Interface
gradio.inputs = types.SimpleNamespace(Dataframe=anything)
gradio.outputs = types.SimpleNamespace(Textbox=anything)
sys.modules["gradio"] = gradio
sys.path[0] = str(folder)
runpy.run_path(str(folder / "app.py"), run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize("copied", [False, True], ids=["in the checkout", "alone"])
@pytest.mark.parametrize("name", NAMES)
def test_readme_example_and_space(tmp_path: Path, name: str, copied: bool):
    folder = METRICS / name
    if copied:
        folder = tmp_path / "space" / name
        shutil.copytree(METRICS / name, folder, ignore=shutil.ignore_patterns("__pycache__"))
    cwd = tmp_path / "elsewhere"
    cwd.mkdir()
    predictions, references = INPUTS[name]
    # The widget takes texts in quotes.
    texts = [json.dumps(p) if isinstance(p, str) else p for p in predictions]
    truth = [json.dumps(r) if isinstance(r, str) else r for r in references]
    columns = json.dumps({"predictions": texts, "references": truth})
    # Of the checkout a Space has modeling_mora alone, from pip.
    (cwd / "modeling_mora").symlink_to(ROOT / "modeling_mora")
    run = subprocess.run(
        [sys.executable, "-c", SPACE, folder, columns],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(cwd), "HF_HOME": str(tmp_path / "hf")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    scores = json.loads(run.stdout.splitlines()[-1])
    assert scores["n"] == 2
    assert set(scores) == SCORES[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_has_what_a_space_needs(name: str):
    folder = METRICS / name
    front = yaml.safe_load(REGEX_YAML_BLOCK.match((folder / "README.md").read_text())[1])
    assert (front["sdk"], front["app_file"]) == ("gradio", "app.py")
    assert {"evaluate", "metric"} <= set(front["tags"])
    code = "".join(path.read_text() for path in folder.glob("*.py"))
    required = (folder / "requirements.txt").read_text()
    for package, needle in {
        "modeling-mora": "from modeling_mora",
        "rdkit": "from rdkit",
        "rapidfuzz": "from rapidfuzz",
        "scipy": "from scipy",
    }.items():
        assert (package in required) == (needle in code), package


@pytest.fixture
def load(tmp_path: Path):
    def load(name: str) -> evaluate.Metric:
        return evaluate.load(str(METRICS / name), cache_dir=str(tmp_path))

    return load


@pytest.mark.parametrize("name", ["molecule_match", "fingerprint_similarity"])
def test_none_may_stand_anywhere_and_batches_add_up(load, name: str):
    metric = load(name)
    metric.add_batch(predictions=[None, "OCC"], references=["CCO", "CCO"])
    metric.add(prediction=None, reference="CCO")
    scores = metric.compute(policy="published", notation="smiles")
    assert (scores["n"], scores["n_valid"], scores["policy"]) == (3, 1, "published")


def test_regression_takes_texts_numbers_and_none(load):
    scores = load("property_regression").compute(
        predictions=[None, "0.25 eV", 0.3, 1e-7, "0.25 hartree"],
        references=[0.2, 0.2, 0.2, 0, 0.3],
        unit="eV",
        properties=["homo", "gap", "gap", "gap", "homo"],
    )
    assert scores["mae"] == pytest.approx((0.05 + 0.1 + 1e-7) / 3)
    assert (scores["r2"], scores["unit"], scores["n_valid"]) == (None, "eV", 3)
    per_property = scores["per_property"]
    assert list(per_property) == ["homo", "gap"]
    assert (per_property["homo"]["mae"], per_property["homo"]["parsed"]) == (None, 0)
    assert per_property["gap"]["r2"] is not None


def test_roc_auc_by_label(load):
    scores = load("property_roc_auc").compute(
        predictions=[0.1, 0.9, 0.3, 0.4, None],
        references=[0, 1, 1, 0, None],
        labels=["a", "a", "b", "b", "b"],
    )
    assert (scores["roc_auc"], scores["n"], scores["n_valid"]) == (0.5, 5, 4)
    assert scores["per_label"] == {
        "a": {"roc_auc": 1, "n": 2, "n_valid": 2},
        "b": {"roc_auc": 0, "n": 3, "n_valid": 2},
    }


@pytest.mark.parametrize("name", NAMES)
def test_bad_input_is_named_here_too(load, name: str):
    predictions, references = INPUTS[name]
    with pytest.raises(ValueError, match="policy='loose'"):
        load(name).compute(predictions=predictions, references=references, policy="loose")
    with pytest.raises(ValueError, match=r"predictions \(1\) and references \(2\)"):
        load(name).compute(predictions=predictions[:1], references=references)
    with pytest.raises(ValueError, match="no rows"):
        load(name).compute(predictions=[], references=[])
