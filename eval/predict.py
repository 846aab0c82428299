# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Ask a MoRA model about a few molecules from the command line.

python -m eval.predict --model DIR --task property_prediction --property gap "CCO" "c1ccccc1"
"""

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text
from scipy.constants import physical_constants
from transformers import ProcessorMixin

from eval.generation import answer_budget, generate_answers, load_model, load_processor
from eval.question_arguments import add_numbers_flag
from modeling_mora.tasks_mora import get_task

HARTREE_IN_EV = physical_constants["Hartree energy in eV"][0]
# As long as an answer of the task gets: a sign and every decimal.
LONGEST_VALUE = -0.1234


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.predict", description="Ask a MoRA model about molecules."
    )
    parser.add_argument("--model", required=True, help="MoRA checkpoint: a folder or a Hub id")
    parser.add_argument("--task", default="property_prediction", help="what to ask")
    parser.add_argument("--property", required=True, help="which property, such as gap")
    parser.add_argument("--batch_size", type=int, default=32, help="molecules per batch")
    add_numbers_flag(parser)
    parser.add_argument("molecules", nargs="+", help="SMILES, SELFIES or InChI")
    return parser.parse_args(arguments)


def find_bad_molecules(molecules: Sequence[str], processor: ProcessorMixin) -> list[str]:
    """Return one line per molecule that the model cannot be asked about, saying why."""
    problems = []
    for molecule in molecules:
        try:
            processor.feature_extractor.featurize(molecule)
        except ValueError as error:
            problems.append(str(error))
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code, 2 when a molecule or the property is bad."""
    args = parse_arguments(arguments)
    try:
        if args.task != "property_prediction":
            get_task(args.task)
            raise ValueError(f"{args.task} is no property: ask it through transformers.pipeline")
        processor = load_processor(args.model)
        task = processor.task(args.task)
        task.question("C", args.property)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    problems = find_bad_molecules(args.molecules, processor)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        return 2

    # The question holds canonical SMILES, as in training, however the molecule was written.
    molecule_format = processor.feature_extractor.molecule_format
    smiles = [task.read(molecule, molecule_format) for molecule in args.molecules]
    answers = generate_answers(
        load_model(args.model),
        processor,
        prompts=[task.question(molecule, args.property) for molecule in smiles],
        molecules=smiles,
        max_new_tokens=answer_budget(processor, [task.answer(LONGEST_VALUE, args.property)]),
        batch_size=args.batch_size,
        numbers=args.numbers,
    )

    table = Table(title=f"{args.property}, predicted by {args.model}")
    table.add_column("molecule", overflow="fold")
    unit = task.properties[args.property].unit
    table.add_column(unit or "value", justify="right")
    if unit == "hartree":
        table.add_column("eV", justify="right")
    for molecule, answer in zip(args.molecules, answers, strict=True):
        value = task.parse(answer.text, args.property) if answer.finished else None
        cells = [Text(f"no number: {answer.text!r}"), Text("—")]
        if value is not None:
            in_ev = Text(f"{value * HARTREE_IN_EV:.3f}")
            cells = [Text(task.answer(value, args.property)), in_ev]
        # Text, because rich reads the [nH] of a plain string as markup and swallows it.
        table.add_row(Text(molecule), *cells[: len(table.columns) - 1])
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
