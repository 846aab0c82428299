# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""What two splits have in common: molecules, reactions, and questions with their answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from datasets import Dataset
from rich.table import Table

from modeling_mora.tasks_mora import Task
from training.data.splits import without_stereo

# Tasks whose graph and answer are parts of one reaction.
REACTION_ANSWERS = ("forward_reaction_prediction", "retrosynthesis")
REACTION_TASKS = (*REACTION_ANSWERS, "reagent_prediction")
KINDS = (
    "molecule",
    "molecule, stereo ignored",
    "reaction",
    "reaction, stereo ignored",
    "question and answer",
)
# What `check_leaks` stops at; stereoisomers in two splits are only reported.
EXACT = ("molecule", "reaction", "question and answer")


class LeakError(ValueError):
    """Splits have something in common."""


@dataclass(frozen=True)
class Leak:
    """What two splits share, of one kind.

    Attributes:
        kind: such as `"molecule"` or `"molecule, stereo ignored"`.
        first: name of a split.
        second: name of another one.
        shared: number of different molecules (reactions, questions) in both.
        share: these as a share of all different ones in `second`.
        example: one of them, or None.
    """

    kind: str
    first: str
    second: str
    shared: int
    share: float
    example: str | None


def find_leaks(splits: Mapping[str, Dataset], tasks: Mapping[str, Task]) -> list[Leak]:
    """Compare all pairs of splits.

    Molecules are what becomes the graph. A reaction is the set of its reactants and products,
    whichever of the three tasks on reactions asks about it; a source that counts reagents to the
    reactants makes another reaction of it. Questions are compared as they are worded.

    Args:
        splits: examples with the columns of `training.data`, in the order train, validation, test.
        tasks: by name, as the examples were made, to read the answers.

    Returns:
        One for each kind and pair, shared or not; kinds that do not occur are left out.
    """
    flat: dict[str, str] = {}

    def flatten(smiles: str) -> str:
        if smiles not in flat:
            flat[smiles] = without_stereo(smiles)
        return flat[smiles]

    keys: dict[str, dict[str, set[str]]] = {kind: {} for kind in KINDS}
    for split, dataset in splits.items():
        columns = [dataset[column][:] for column in ("task", "molecule", "prompt", "answer")]
        molecules = set(columns[1]) - {None}
        reactions = {
            _reaction(task, molecule, answer, tasks)
            for task, molecule, _, answer in zip(*columns, strict=True)
            if task in REACTION_TASKS
        }
        questions = {f"{prompt} → {answer}" for _, _, prompt, answer in zip(*columns, strict=True)}
        flat_ones = [{flatten(key) for key in found} for found in (molecules, reactions)]
        found = (molecules, flat_ones[0], reactions, flat_ones[1], questions)
        for kind, values in zip(KINDS, found, strict=True):
            keys[kind][split] = values
    leaks = []
    for kind, sets in keys.items():
        if not any(sets.values()):
            continue
        for first, second in combinations(splits, 2):
            shared = sets[first] & sets[second]
            share = len(shared) / len(sets[second]) if shared else 0.0
            example = min(shared) if shared else None
            leaks.append(Leak(kind, first, second, len(shared), share, example))
    return leaks


def check_leaks(leaks: list[Leak]) -> None:
    """Stop if splits share a molecule, a reaction, or a question with its answer.

    Raises:
        LeakError: names the first of each kind.
    """
    bad = [leak for leak in leaks if leak.kind in EXACT and leak.shared]
    if bad:
        found = "; ".join(
            f"{leak.first} and {leak.second} share {leak.shared} × {leak.kind}, such as "
            f"{leak.example!r}"
            for leak in bad
        )
        raise LeakError(
            f"{found}. Split at random over molecules or by scaffold, drop a source, or set "
            "fail_on_leak to false."
        )


def leak_table(title: str, leaks: list[Leak]) -> Table:
    """Shared molecules, reactions and questions by pair of splits, for the screen."""
    table = Table(title=title, title_justify="left")
    table.add_column("in two splits\n(share of the second)", overflow="fold")
    for first, second in dict.fromkeys((leak.first, leak.second) for leak in leaks):
        table.add_column(f"{first}\n& {second}", justify="right")
    for kind in dict.fromkeys(leak.kind for leak in leaks):
        row = [leak for leak in leaks if leak.kind == kind]
        cells = [f"{leak.shared:,} ({leak.share:.1%})" if leak.shared else "0" for leak in row]
        table.add_row(kind, *cells)
    return table


def _reaction(task: str, molecule: str, answer: str, tasks: Mapping[str, Task]) -> str:
    """All reactants and products, joined by dots in alphabetical order."""
    parts = molecule.split(".")
    if task in REACTION_ANSWERS:
        # Built answers in SMILES are canonical; parsing them again takes most of the time.
        if tasks[task].notation != "smiles":
            answer = tasks[task].parse(answer) or answer
        parts += answer.split(".")
    return ".".join(sorted(parts))
