# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""How questions are put and answers are read."""

import json
import math
from dataclasses import replace

import pytest

from modeling_mora import MoleculeError, MoraProcessor
from modeling_mora.molecules_mora import canonical_smiles, parse_molecule
from modeling_mora.tasks_mora import TASKS, get_task, task_settings

TASK = get_task("property_prediction")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.2471", 0.2471),
        ("-0.2345 Hartree.", -0.2345),
        ("1.2e-3", 1.2e-3),
        (".5", 0.5),
        ("\N{MINUS SIGN}0.25", -0.25),
        ("+0.1\n", 0.1),
        ("The gap of C6H6 is **0.25** hartree.", 0.25),
        ("gap=0.25", 0.25),
        ("HOMO:-0.25", -0.25),
        ("0.25 (0.25)", 0.25),
    ],
)
def test_parse_reads_one_number(text, value):
    assert TASK.parse(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I do not know.",
        "C6H6",
        "0,345",
        "0.25.3",
        "1,000.5",
        "0.2 and 0.3",
        "1/4",
        "1:1",
        "10⁻³",
        "2.5 x 10^-3",
        "- 0.25",
        "\N{EN DASH}0.25",
        "gap-0.25",
        "< 0.3",
        "less than 0.3",
        "minus 0.25",
        "Minus 0.25",
        "2.5 x10-3",
        "2.5 X10^-3",
        "2.5 e-3",
        "6.8 eV",
        "6.8eV",
        "6.8 (eV)",
        "250 mHa",
        "155 kcal/mol",
        "nan",
        "inf",
        "1e999",
        "0.2471<|im_end|>",
    ],
)
def test_parse_never_guesses(text):
    assert TASK.parse(text) is None


@pytest.mark.parametrize(
    ("value", "answer"), [(0.24713, "0.2471"), (-0.2, "-0.2000"), (-0.00001, "0.0000")]
)
def test_answer_has_four_decimals_and_is_read_back(value, answer):
    assert TASK.answer(value) == answer
    assert TASK.parse(TASK.answer(value)) == round(value, 4)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_answer_must_be_finite(value):
    with pytest.raises(ValueError, match="drop the row"):
        TASK.answer(value)


@pytest.mark.parametrize("phrasing", range(len(TASK.prompts)))
@pytest.mark.parametrize("property", TASK.properties)
def test_question_names_molecule_property_and_unit(property, phrasing):
    molecule = "C{0}=[N+]"  # braces, to see that the molecule is not read as a format
    question = TASK.question(molecule, property, phrasing)
    assert molecule in question
    assert TASK.properties[property].description in question
    assert "hartree" in question


def test_questions_differ():
    questions = {
        TASK.question("CCO", property, phrasing)
        for property in TASK.properties
        for phrasing in range(len(TASK.prompts))
    }
    assert len(questions) == len(TASK.properties) * len(TASK.prompts)


def test_unknown_names_are_refused_with_those_known():
    with pytest.raises(ValueError, match="'forward_synthesis'.*property_prediction"):
        get_task("forward_synthesis")
    with pytest.raises(ValueError, match="'mu'.*homo, lumo, gap"):
        TASK.question("CCO", "mu")
    for phrasing in (-1, len(TASK.prompts)):
        with pytest.raises(ValueError, match=f"Phrasing {phrasing} "):
            TASK.question("CCO", "gap", phrasing)


ACID, ALCOHOL, ESTER = "CC(=O)O", "CCO", "CCOC(C)=O"
# Task, arguments of its question, the graph, an answer as given and as written.
EXAMPLES = [
    (
        "forward_reaction_prediction",
        {"molecule": f"{ACID}.{ALCOHOL}"},
        f"{ACID}.{ALCOHOL}",
        "O(CC)C(C)=O",
        ESTER,
    ),
    (
        "forward_reaction_prediction",
        {"molecule": f"{ACID}.{ALCOHOL}", "reagents": "O=S(=O)(O)O"},
        f"{ACID}.{ALCOHOL}",
        ESTER,
        ESTER,
    ),
    ("retrosynthesis", {"molecule": ESTER}, ESTER, f"OCC.{ACID}", f"{ACID}.{ALCOHOL}"),
    (
        "reagent_prediction",
        {"molecule": f"{ACID}.{ALCOHOL}>>{ESTER}"},
        f"{ACID}.{ALCOHOL}.{ESTER}",
        "OS(=O)(O)=O",
        "O=S(=O)(O)O",
    ),
    ("property_prediction", {"molecule": ALCOHOL, "property": "gap"}, ALCOHOL, 0.32801, "0.3280"),
    ("property_classification", {"molecule": ALCOHOL, "label": "BBBP"}, ALCOHOL, 1, "Yes"),
    ("molecule_captioning", {"molecule": ALCOHOL}, ALCOHOL, " An alcohol. ", "An alcohol."),
    ("molecule_qa", {"molecule": ALCOHOL, "question": "Is it polar?"}, ALCOHOL, "It is.", "It is."),
]
SETTINGS = {"property_classification": {"labels": {"BBBP": "cross the blood-brain barrier"}}}


@pytest.mark.parametrize("notation", ["smiles", "selfies"])
@pytest.mark.parametrize(("name", "asked", "graph", "value", "written"), EXAMPLES)
def test_every_task_asks_writes_and_reads(name, asked, graph, value, written, notation):
    """Question, graph and answer; what is written is read back, in both notations."""
    task = get_task(name, notation=notation, **SETTINGS.get(name, {}))
    questions = {task.question(**asked, phrasing=i) for i in range(len(task.prompts))}
    assert len(questions) == len(task.prompts) >= 2
    parts = asked["molecule"].split(">>")
    for question in questions:
        assert all(task.spell(part) in question for part in parts)
        if asked.get("reagents"):
            assert task.spell(asked["reagents"]) in question
        assert "[" in question if notation == "selfies" else "[C]" not in question
    assert task.graph(task.read(asked["molecule"])) == graph
    answer = task.answer(value)
    is_molecule = isinstance(value, str) and name.endswith(("prediction", "synthesis"))
    assert answer == (task.spell(written) if is_molecule else written)
    expected = {"Yes": True, "0.3280": 0.328}.get(written, written)
    assert task.parse(answer) == expected
    assert task.metrics


HIDDEN = {
    "forward_reaction_prediction": "these molecules",
    "reagent_prediction": "this reaction",
}


@pytest.mark.parametrize("notation", ["smiles", "selfies"])
@pytest.mark.parametrize(("name", "asked", "graph", "value", "written"), EXAMPLES)
def test_words_stand_in_place_of_the_molecule(name, asked, graph, value, written, notation):
    task = get_task(name, notation=notation, **SETTINGS.get(name, {}))
    molecule = canonical_smiles(parse_molecule(graph))  # as the rows of data have it
    spelled = ">>".join(map(task.spell, asked["molecule"].split(">>")))
    for phrasing in range(len(task.prompts)):
        question = task.question(**asked, phrasing=phrasing)
        before, _, behind = question.partition(spelled)
        words = HIDDEN.get(name, "this molecule")
        assert task.hide_molecule(question, molecule) == before + words + behind
        with pytest.raises(ValueError, match=r"Row 7: the question '.*' does not spell 'CCN'"):
            task.hide_molecule(question, "CCN", row=7)
        other = "selfies" if notation == "smiles" else "smiles"
        with pytest.raises(ValueError, match=f"does not spell '.*' in {other}"):
            replace(task, notation=other).hide_molecule(question, molecule)


@pytest.mark.parametrize(
    ("question", "molecule", "hidden"),
    [
        ("HOMO-LUMO gap of O in hartree?", "O", "HOMO-LUMO gap of this molecule in hartree?"),
        ("What is known about C?", "C", "What is known about this molecule?"),
        ("CO: pKa of C-OH?", "CO", "this molecule: pKa of C-OH?"),
        ("Is (CCO), or CCO.O, wet? CCO", "CCO", "Is (this molecule), or CCO.O, wet? this molecule"),
        ("CC(=O)O A=O? [O] 'C=O' C=O", "C=O", "CC(=O)O A=O? [O] 'this molecule' this molecule"),
        (r"What is F/C=C\F good for? F/C=C\F", r"F/C=C\F", "What is {0} good for? {0}"),
    ],
)
def test_the_string_is_hidden_as_a_word_alone(question, molecule, hidden):
    task = get_task("molecule_qa")
    assert task.hide_molecule(question, molecule) == hidden.format("this molecule")


def test_reagents_are_not_in_the_graph_and_stay():
    task = get_task("forward_reaction_prediction")
    question = task.question("CCO", reagents="CCO.O", phrasing=1)
    assert task.hide_molecule(question, "CCO") == (
        "What do these molecules react to? these molecules Reagents: CCO.O"
    )


@pytest.mark.parametrize("reaction", ["CCO>>", ">>CCO", "CCO>>C(", "CCO>CCC", "CCO >> CC"])
def test_no_reaction_is_hidden_but_that_of_the_graph(reaction):
    with pytest.raises(ValueError, match=r"^the question 'Suggest.*' does not spell 'CC.CCO'"):
        get_task("reagent_prediction").hide_molecule(f"Suggest reagents for {reaction}", "CC.CCO")


@pytest.mark.parametrize("name", ["forward_reaction_prediction", "retrosynthesis"])
@pytest.mark.parametrize("text", ["", "I do not know", "C1CC", "CCO and water", "[C][C"])
def test_what_is_no_molecule_is_not_read(name, text):
    assert get_task(name).parse(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Yes", True),
        ("yes, it does", True),
        ("**No**.", False),
        ("Maybe", None),
        ("", None),
        ("Nope", None),
    ],
)
def test_yes_and_no(text, value):
    assert get_task("property_classification").parse(text) is value


@pytest.mark.parametrize("value", ["", "2", 0.5, float("nan")])
def test_a_label_is_one_or_nought(value):
    with pytest.raises(ValueError):
        get_task("property_classification").answer(value)


def test_a_reaction_needs_both_sides():
    for reaction in ("CCO", "CCO>>", ">>CCO"):
        with pytest.raises(MoleculeError, match="is no reaction"):
            get_task("reagent_prediction").read(reaction)
    with pytest.raises(MoleculeError, match="Row 3"):
        get_task("reagent_prediction").read("CCO>>C(", row=3)


def test_own_property_with_its_unit():
    task = get_task(
        "property_prediction",
        properties={
            "logS": {"description": "aqueous solubility", "unit": "log(mol/L)", "decimals": 2}
        },
    )
    assert task.question("CCO", "logS") == "aqueous solubility of CCO in log(mol/L)?"
    assert task.answer(-3.456, "logS") == "-3.46"
    assert task.parse("-3.46 log(mol/L)", "logS") == -3.46
    assert task.parse("-3.46 eV", "logS") is None
    energy = get_task(
        "property_prediction", properties={"dG": {"description": "x", "unit": "kcal/mol"}}
    )
    assert energy.parse("-5.1 kcal/mol", "dG") == -5.1
    assert energy.parse("-5.1 kJ/mol", "dG") is None
    assert energy.parse("-5.1 hartree", "dG") is None


def test_settings_travel_with_the_processor(processor, tmp_path):
    """So that a checkpoint can be asked by the name of its task."""
    task = get_task(
        "property_prediction",
        notation="selfies",
        properties={"logS": {"description": "solubility"}},
    )
    saved = MoraProcessor(
        processor.feature_extractor,
        processor.tokenizer,
        tasks={"property_prediction": task_settings(task)},
    )
    saved.save_pretrained(tmp_path)
    loaded = MoraProcessor.from_pretrained(tmp_path)
    assert loaded.task("property_prediction") == task
    loaded.save_pretrained(tmp_path / "again")  # asking for a task has left its settings plain
    assert loaded.task("retrosynthesis") == get_task("retrosynthesis")
    assert json.loads((tmp_path / "processor_config.json").read_text())["tasks"].keys() == {
        "property_prediction"
    }


@pytest.mark.parametrize("name", TASKS)
def test_unknown_notation_is_refused(name):
    with pytest.raises(ValueError, match="notation='iupac': use one of smiles, selfies"):
        get_task(name, notation="iupac")
