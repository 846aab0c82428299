# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The report: its tables, its page and the command."""

import io
import json
import re
from pathlib import Path

import pytest
from matplotlib.image import imread
from result_files import write_results
from rich.console import Console

from eval import report
from eval.metric_names import main_and_further, write_interval, write_value
from eval.published_results import Entry, Paper, read_published
from eval.report_page import write_page
from eval.report_tables import find_sections, our_rows, published_rows, section_rows
from eval.report_terminal import print_section
from eval.result_files import Run, read_runs

CONTROLS = ("base_model", "no_molecule", "shuffled_molecule")
PAPER = Paper("A", "Author, A, 2026", "2601.00001", "https://github.com/a/a")


def entry(**changes) -> Entry:
    values = {
        "model": "A-7B",
        "paper": PAPER,
        "base": "toy/llm",
        "task": "retrosynthesis",
        "source": "toy",
        "split": "test",
        "n": 30,
        "policy": "strict",
        "table": "Table 1",
        "seen": "the paper",
        "verified": True,
        "metrics": {"exact_match": 0.4},
    }
    return Entry(**{**values, **changes})


def runs_of(tmp_path: Path, *settings: dict, n: int = 30) -> list[Run]:
    return read_runs(
        [write_results(tmp_path / str(i), n=n, **known) for i, known in enumerate(settings)]
    )


def score(run: Run, control: str | None, metric: str):
    [found] = [score for score in run.scores if score.control == control]
    return found.metrics[metric]


class TestSections:
    def test_runs_of_one_kind_share_a_section(self, tmp_path: Path):
        runs = runs_of(tmp_path, {"model": "a"}, {"model": "b"})
        [section] = find_sections(runs)
        assert section.runs == tuple(runs)
        assert section.title == "Retrosynthesis: toy, test split, policy strict"

    @pytest.mark.parametrize(
        "changes",
        [
            {"policy": "published"},
            {"source": "other"},
            {"notation": "selfies"},
            {"task": "forward_reaction_prediction"},
        ],
    )
    def test_what_differs_stands_apart(self, tmp_path: Path, changes: dict):
        runs = runs_of(tmp_path, {}, changes)
        sections = find_sections(runs)
        assert len(sections) == 2
        assert {section.runs[0].number for section in sections} == {1, 2}

    def test_another_fingerprint_of_the_data_stands_apart(self, tmp_path: Path):
        path = write_results(tmp_path / "b", n=5, model="b")
        data = json.loads(path.read_text())["data"]
        write_results(tmp_path / "b", n=5, model="b", data={**data, "dataset_sha256": "e" * 64})
        write_results(tmp_path / "a", n=5)
        assert len(find_sections(read_runs([tmp_path]))) == 2


class TestOurRows:
    def test_controls_stand_below_their_model_with_their_own_values(self, tmp_path: Path):
        runs = runs_of(tmp_path, {"model": "x/a", "controls": CONTROLS}, {"model": "x/b"})
        [section] = find_sections(runs)
        rows = our_rows(section)
        assert [(row.name, row.kind) for row in rows] == [
            ("1 x/a", "model"),
            ("base model, adapter off", "control"),
            ("no molecule", "control"),
            ("shuffled molecule", "control"),
            ("2 x/b", "model"),
        ]
        for row, control in zip(rows, (None, *CONTROLS), strict=False):
            value = score(runs[0], control, "exact_match")
            assert row.cells["exact_match"] == (
                f"{value.value:.3f}\n[{value.low:.3f}, {value.high:.3f}]"
            )
            assert row.n == "30"

    def test_the_training_mean_belongs_to_its_property(self, tmp_path: Path):
        settings = {"task": "property_prediction", "controls": ("training_mean", "no_molecule")}
        [section] = find_sections(runs_of(tmp_path, settings))
        rows = our_rows(section)
        assert [row.name for row in rows][1:] == ["no molecule", "mean of the training answers"]
        assert rows[2].cells["mae"].startswith("0.0392\n")
        assert {row.property for row in rows} == {"gap (hartree)"}

    def test_seeds_of_one_model_get_a_mean(self, tmp_path: Path):
        settings = [
            {"model": f"x/mora-seed{i}", "quality": 0.3 * i, "controls": ("no_molecule",)}
            for i in range(3)
        ]
        runs = runs_of(tmp_path, settings[0], {"model": "x/other"}, *settings[1:])
        [section] = find_sections(runs)
        rows = our_rows(section)
        names = [row.name for row in rows]
        assert names[-1] == "2 x/other"
        assert names[:8:2] == ["1 x/mora-seed0", "3 x/mora-seed1", "4 x/mora-seed2", names[6]]
        assert names[6:8] == ["mean ± std of 3 seeds", "mean ± std of 3 seeds, no molecule"]
        values = [score(runs[i], None, "exact_match").value for i in (0, 2, 3)]
        mean = sum(values) / 3
        spread = (sum((value - mean) ** 2 for value in values) / 2) ** 0.5
        assert spread > 0
        assert rows[6].cells["exact_match"] == f"{mean:.3f}\n± {spread:.3f}"

    @pytest.mark.parametrize(
        "second",
        [
            {"model": "x/mora-rank8-seed1"},
            {"model": "x/mora-seed1", "method": "lora"},
            {"model": "x/mora-seed1", "base_fingerprint": "c" * 64},
        ],
    )
    def test_other_methods_are_never_averaged(self, tmp_path: Path, second: dict):
        [section] = find_sections(runs_of(tmp_path, {"model": "x/mora-seed0"}, second))
        assert [row.kind for row in our_rows(section)] == ["model", "model"]

    @pytest.mark.parametrize("name", ["x/mora", "x/mora-seed0"])
    def test_one_model_scored_twice_is_no_pair_of_seeds(self, tmp_path: Path, name: str):
        [section] = find_sections(runs_of(tmp_path, {"model": name}, {"model": name}))
        assert [row.name for row in our_rows(section)] == [f"1 {name}", f"2 {name}"]

    def test_what_could_not_be_computed_is_a_dash(self, tmp_path: Path):
        made = {"answer": lambda row: {"text": "("}, "model": "a-seed0"}
        [section] = find_sections(runs_of(tmp_path, made, {**made, "model": "a-seed1"}))
        assert [row.cells["morgan"] for row in our_rows(section)] == ["–"] * 3


class TestPublishedRows:
    @pytest.mark.parametrize(
        ("changes", "differs"),
        [
            ({}, {}),
            ({"source": "mol_instructions"}, {"data": "mol_instructions"}),
            ({"split": "valid"}, {"split": "valid"}),
            ({"n": 1000}, {"n": "1,000"}),
            ({"n": None}, {"n": "not known"}),
            ({"policy": "published"}, {"policy": "published"}),
            ({"base": "Vicuna"}, {"base": "Vicuna"}),
            ({"unit": "eV"}, {"unit": "eV"}),
        ],
    )
    def test_what_is_not_comparable_is_said(self, tmp_path: Path, changes: dict, differs: dict):
        [section] = find_sections(runs_of(tmp_path, {}))
        [row] = published_rows(section, [entry(**changes)])
        assert row.differs == differs
        assert row.cells == {"exact_match": "0.4"}
        assert row.url == "https://arxiv.org/abs/2601.00001"

    def test_only_the_same_task_and_property(self, tmp_path: Path):
        runs = runs_of(tmp_path, {"task": "property_prediction"})
        [section] = find_sections(runs)
        known = {"task": "property_prediction", "metrics": {"mae": 0.0025}, "unit": "hartree"}
        rows = published_rows(
            section,
            [
                entry(),
                entry(model="gap", property="gap", **known),
                entry(model="homo", property="homo", **known),
                entry(model="mean", mean_over=("homo", "gap"), **known),
            ],
        )
        assert [(row.name, row.property) for row in rows] == [
            ("gap", "gap (hartree)"),
            ("mean", "mean of homo, gap (hartree)"),
        ]

    def test_unverified_numbers_are_marked(self, tmp_path: Path):
        [section] = find_sections(runs_of(tmp_path, {}))
        rows = published_rows(section, [entry(), entry(model="B", verified=False)])
        assert [row.name for row in rows] == ["A-7B", "B †"]

    def test_they_stand_behind_the_property_they_are_about(self, tmp_path: Path):
        settings = {"task": "property_prediction", "properties": ("homo", "gap")}
        [section] = find_sections(runs_of(tmp_path, settings))
        known = {"task": "property_prediction", "metrics": {"mae": 0.0025}, "unit": "hartree"}
        entries = [
            entry(model="mean", mean_over=("homo", "gap"), **known),
            entry(model="gap", property="gap", **known),
            entry(model="homo", property="homo", **known),
        ]
        names = [row.name for row in section_rows(section, entries)]
        assert names == ["1 runs/toy-mora", "homo", "1 runs/toy-mora", "gap", "mean"]

    def test_the_strongest_are_shown_beside_ours(self, tmp_path: Path):
        [section] = find_sections(runs_of(tmp_path, {}))
        rows = {row.name: row for row in published_rows(section, read_published())}
        assert rows["BioT5+ †"].cells["exact_match"] == "0.642"
        assert rows["InstructMol-GS"].differs["policy"] == "published"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("exact_match", 0.4126, "0.413"),
        ("exact_match", 0.0, "0.000"),
        ("levenshtein", 12.345, "12.35"),
        ("mae", 0.018432, "0.0184"),
        ("mae", 1.23456, "1.23"),
        ("mae", 0.0, "0.0000"),
        ("n_valid", 286.0, "286"),
        ("something_new", 0.5, "0.500"),
        ("mae", None, "–"),
    ],
)
def test_numbers_have_the_digits_they_deserve(name: str, value: float | None, text: str):
    assert write_value(name, value) == text


def test_an_interval_has_the_digits_of_its_value():
    assert write_interval("mae", 0.0184, 0.016, 0.0213) == "[0.0160, 0.0213]"


def test_scores_are_in_order_and_none_is_lost():
    main, further = main_and_further(
        "retrosynthesis", ["morgan", "new", "n", "validity", "exact_match_inchi", "exact_match"]
    )
    assert main == ["exact_match", "morgan", "validity"]
    assert further == ["exact_match_inchi", "new"]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Text and folder of a report on several models, tasks and policies."""
    folder = tmp_path_factory.mktemp("report")
    known = {"n": 25}
    long = "runs/" + "very_long_name_" * 8
    write_results(folder / "in" / "a", controls=CONTROLS, **known)
    write_results(folder / "in" / "b", model=long, method="lora", **known)
    write_results(folder / "in" / "c", policy="published", notation="selfies", **known)
    write_results(
        folder / "in" / "d", "property_prediction", source="qm9", controls=("no_molecule",), **known
    )
    write_results(folder / "in" / "e", "property_classification", **known)
    write_results(folder / "in" / "f", "molecule_captioning", source="chebi20", **known)
    arguments = [str(folder / "in"), "--output_dir", str(folder / "out"), "--title", "Toys | all"]
    assert report.main(arguments) == 0
    return (folder / "out" / "report.md").read_text(), folder / "out"


def table(text: str, number: int = 0) -> list[list[str]]:
    """Cells of a Markdown table of a page."""
    found = re.findall(r"(?:^\|.*\|\n)+", text, flags=re.MULTILINE)[number]
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in found.strip().split("\n")
    ]


class TestPage:
    def test_every_section_has_a_table_and_its_plots(self, page: tuple[str, Path]):
        text, folder = page
        assert re.findall(r"^## (.*)", text, flags=re.MULTILINE) == [
            "Retrosynthesis: toy, test split, policy strict",
            "Retrosynthesis: toy, test split, policy published, SELFIES",
            "Property prediction: qm9, test split, policy strict",
            "Property classification: toy, test split, policy strict",
            "Molecule captioning: chebi20, test split, policy strict",
            "Where the published numbers come from",
            "How these were made",
        ]
        plots = re.findall(r"!\[.*\]\((.*)\)", text)
        assert len(plots) == len(set(plots)) == 15
        assert sorted(plots) == sorted(path.name for path in folder.glob("*.png"))
        for plot in plots:
            assert min(imread(folder / plot).shape[:2]) > 200

    def test_tables_are_rectangular_and_hold_our_numbers(self, page: tuple[str, Path]):
        text, folder = page
        for number in range(7):
            assert len({len(line) for line in table(text, number)}) == 1
        lines = table(text)
        assert lines[0][:4] == ["model", "method", "n", "exact match↑"]
        scores = json.loads((folder.parent / "in" / "a" / "results.json").read_text())["scores"]
        for line, expected in zip(lines[2:6], scores, strict=True):
            value = expected["metrics"]["exact_match"]
            low, high = value["low"], value["high"]
            assert line[3] == f"{value['value']:.3f}<br>[{low:.3f}, {high:.3f}]"
        assert lines[3][0] == "&nbsp;&nbsp;↳ base model, adapter off"

    def test_published_rows_are_set_apart(self, page: tuple[str, Path]):
        lines = table(page[0])
        assert lines[0][-1] == "not comparable in"
        rows = {line[0]: line for line in lines}
        row = rows["*[BioT5+](https://arxiv.org/abs/2402.17810)* †"]
        assert row[3] == "0.642"
        assert "policy: published" in row[-1]
        assert "BioT5+" in page[0].split("## Where the published numbers come from")[1]
        assert "not verified" in page[0]

    def test_several_policies_are_pointed_out(self, page: tuple[str, Path]):
        head = page[0].split("## ")[0]
        assert "**These results were counted by different policies.**" in head
        assert "Policy `strict`: " in head and "Policy `published`: " in head

    def test_selfies_validity_is_not_praised(self, page: tuple[str, Path]):
        _, strict, published, *_ = page[0].split("\n## ")
        assert "validity proves nothing" in published
        assert "validity proves nothing" not in strict

    def test_how_they_were_made(self, page: tuple[str, Path]):
        text = page[0].split("## How these were made")[1]
        assert text.count("### ") == 6
        for fact in (
            "adapter `",
            "base: `toy/llm`, weights `bbbbbbbbbbbb`",
            "data: `qm9`, test split, 25 of 25 rows, fingerprint `dddddddddddd`",
            "seeds: split 0, bootstrap 0, shuffle 0",
            "versions: python 3.11.7, torch 2.9.0",
            "device: cpu, 1 process(es), 123.4 s",
            "command: `python -m eval.benchmark --model runs/toy-mora`",
            "max\\_new\\_tokens retrosynthesis 17",
        ):
            assert fact in text

    def test_captions_are_shown_as_text(self, page: tuple[str, Path]):
        section = page[0].split("## Molecule captioning")[1].split("\n## ")[0]
        assert "- answer: `The molecule is made of" in section
        assert "<details>" not in section
        assert "Tokenizer of BLEU, ROUGE and METEOR: `words`" in section


def test_text_cannot_break_the_page(tmp_path: Path):
    nasty = "a|b\n```\n# c <script> `d` $x$ [e](f)"
    path = write_results(
        tmp_path / "in",
        "molecule_captioning",
        n=3,
        model="x|y<z>",
        answer=lambda r: {"text": nasty},
    )
    assert report.main([str(path), "--output_dir", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert "\n# c" not in text
    assert "x\\|y&lt;z&gt;" in text
    assert len({len(line) for line in table(text)}) == 1
    assert "```` a|b ``` # c <script> `d` $x$ [e](f) ````" in text


@pytest.mark.parametrize("task", ["retrosynthesis", "property_prediction"])
def test_different_numbers_of_rows_are_pointed_out(tmp_path: Path, task: str):
    write_results(tmp_path / "a", task, n=5)
    write_results(tmp_path / "b", task, n=6, model="b")
    runs = read_runs([tmp_path])
    sections = find_sections(runs)
    assert "**n differs between rows**" in write_page("t", runs, sections, [], [[]])
    one = find_sections(runs[:1])
    text = write_page("t", runs[:1], one, [], [[]])
    assert "n differs" not in text
    assert "Fingerprint of the data: `dddddddddddd`." in text


@pytest.mark.parametrize("task", ["retrosynthesis", "property_prediction"])
@pytest.mark.parametrize("width", [80, 100, 200])
def test_the_terminal_shows_every_number_whole(tmp_path: Path, width: int, task: str):
    settings = {"task": task, "controls": CONTROLS, "model": "runs/" + "long_" * 12}
    runs = runs_of(tmp_path, settings)
    [section] = find_sections(runs)
    console = Console(width=width, record=True, file=io.StringIO())
    entries = read_published()
    print_section(section, entries, console)
    printed = console.export_text()
    assert max(len(line.rstrip()) for line in printed.splitlines()) <= width
    for row in section_rows(section, entries):
        assert not row.n or f" {row.n} " in printed
        for metric in set(row.cells) - {"n"}:
            for line in row.cells[metric].split("\n"):
                assert line in printed
    assert "not comparable in" in printed
    assert "data, policy, base" in printed


class TestCommand:
    def test_what_is_printed(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        path = write_results(tmp_path / "in", n=4)
        assert report.main([str(path), "--output_dir", str(tmp_path / "deep" / "out")]) == 0
        printed = capsys.readouterr().out
        assert "Retrosynthesis: toy, test split, policy strict" in printed
        assert "report.md with 4 plots, from 1 result file(s)" in printed

    @pytest.mark.parametrize("name", ["nowhere", "empty"])
    def test_nothing_to_report(self, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]):
        (tmp_path / "empty").mkdir()
        assert report.main([str(tmp_path / name), "--output_dir", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert str(tmp_path / name) in error
        assert not (tmp_path / "out").exists()

    def test_an_invalid_truth_is_refused(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        path = write_results(tmp_path / "in", n=3)
        lines = path.with_name("predictions.jsonl")
        lines.write_text(re.sub(r'"reference": "[^"]*"', '"reference": "C(("', lines.read_text()))
        assert report.main([str(path), "--output_dir", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert "C((" in error
        assert str(path) in error

    @pytest.mark.parametrize(
        "task",
        ["retrosynthesis", "property_prediction", "property_classification", "molecule_qa"],
    )
    def test_one_row(self, tmp_path: Path, task: str):
        path = write_results(tmp_path / "in", task, n=1)
        assert report.main([str(path), "--output_dir", str(tmp_path / "out")]) == 0

    @pytest.mark.parametrize("task", ["retrosynthesis", "property_prediction", "molecule_qa"])
    def test_empty_answers(self, tmp_path: Path, task: str):
        path = write_results(tmp_path / "in", task, n=7, answer=lambda row: {"text": ""})
        assert report.main([str(path), "--output_dir", str(tmp_path / "out")]) == 0
