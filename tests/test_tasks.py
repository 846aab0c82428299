# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""How questions are put and answers are read."""

import math

import pytest

from modeling_mora.tasks_mora import get_task

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
    assert TASK.properties[property] in question
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
