# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""What two splits have in common: molecules, reactions, and questions with their answers."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from datasets import Dataset, DatasetDict
from rich.table import Table

from modeling_mora.tasks_mora import Task
from training.data.build import ROW_NUMBER
from training.data.rejections import Rejections
from training.data.splits import SPLITS, without_stereo

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
    keys: dict[str, dict[str, set[str]]] = {kind: {} for kind in KINDS}
    for split, dataset in splits.items():
        found = list(_row_keys(dataset, tasks))
        for kind in KINDS:
            keys[kind][split] = {row[kind] for row in found if row[kind] is not None}
    leaks = []
    for kind, sets in keys.items():
        if not any(sets.values()):
            continue
        for first, second in itertools.combinations(splits, 2):
            shared = sets[first] & sets[second]
            share = len(shared) / len(sets[second]) if shared else 0.0
            example = min(shared) if shared else None
            leaks.append(Leak(kind, first, second, len(shared), share, example))
    return leaks


def drop_leaks(
    sources: Sequence[Mapping[str, Dataset]],
    tasks: Mapping[str, Task],
    rejections: Sequence[Rejections],
) -> list[DatasetDict]:
    """Leave out of training what validation or test hold, and out of validation what test holds.

    That is, in any source: the molecule or the reaction with stereo ignored, or the question with
    its answer.

    Args:
        sources: the splits of each.
        tasks: see `find_leaks`.
        rejections: of each source; they get what is left out.
    """
    held: dict[str, dict[str, str]] = {kind: {} for kind in KINDS}
    kept: list[dict[str, Dataset]] = [dict(splits) for splits in sources]
    for split in reversed(SPLITS):
        keys = [list(_row_keys(s[split], tasks)) if split in s else [] for s in sources]
        for splits, rows, rejected in zip(kept, keys, rejections, strict=True):
            leaks = [next((k for k in KINDS if row[k] in held[k]), None) for row in rows]
            for number, (row, kind) in enumerate(zip(rows, leaks, strict=True)):
                if kind is not None:
                    example = splits[split][number]
                    reason = f"{kind} is in {held[kind][row[kind]]} too"
                    rejected.add(
                        split,
                        example["id"],
                        "molecule",
                        example["molecule"],
                        reason,
                        example.get(ROW_NUMBER),
                    )
                    rejected.accepted -= 1
            if any(leaks):
                splits[split] = splits[split].select(
                    [number for number, kind in enumerate(leaks) if kind is None]
                )
        for row in itertools.chain.from_iterable(keys):
            for kind, key in row.items():
                if key is not None:
                    held[kind].setdefault(key, split)
    return [DatasetDict(splits) for splits in kept]


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
            "fail_on_leak to false; drop_leaks leaves such rows out of training."
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


def _row_keys(dataset: Dataset, tasks: Mapping[str, Task]) -> Iterator[dict[str, str | None]]:
    """What is compared of each row, by kind; None where a row has nothing of the kind."""
    flatten = lru_cache(maxsize=None)(without_stereo)
    columns = [dataset[column][:] for column in ("task", "molecule", "prompt", "answer")]
    for task, molecule, prompt, answer in zip(*columns, strict=True):
        reaction = None
        if task in REACTION_TASKS:
            reaction = _reaction(task, molecule, answer, tasks)
        yield {
            "molecule": molecule,
            "molecule, stereo ignored": molecule and flatten(molecule),
            "reaction": reaction,
            "reaction, stereo ignored": reaction and flatten(reaction),
            "question and answer": f"{prompt} → {answer}",
        }


def _reaction(task: str, molecule: str, answer: str, tasks: Mapping[str, Task]) -> str:
    """All reactants and products, joined by dots in alphabetical order."""
    parts = molecule.split(".")
    if task in REACTION_ANSWERS:
        # Built answers in SMILES are canonical; parsing them again takes most of the time.
        if tasks[task].notation != "smiles":
            answer = tasks[task].parse(answer) or answer
        parts += answer.split(".")
    return ".".join(sorted(parts))
