# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Reactions, such as those of USPTO, for product, retrosynthesis and reagent prediction.

USPTO reactions were text-mined from United States patents by D. M. Lowe (thesis, Cambridge 2012;
https://doi.org/10.6084/m9.figshare.5104873, CC0). Cite with them the subset that you use, such as
USPTO-50K: Schneider, Stiefl and Landrum, J. Chem. Inf. Model. 56, 2336 (2016).
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

from modeling_mora.molecules_mora import MoleculeError, canonical_smiles, parse_molecule

from .files import ROW, Paths, check_columns, column_names, nearest, open_tables
from .source import RawExample, RowError, Source, cell, needed_text

TASKS = ("forward_reaction_prediction", "retrosynthesis", "reagent_prediction")
COLUMNS = {name: name for name in ("reactants", "reagents", "product", "id", "reaction_class")}
# The arrow of a dative bond, as in N->[Pt], is no separator.
SEPARATOR = re.compile(r"(?<!-)>")


def load_reactions(
    data: Paths | Mapping[str, Paths],
    task: str = "forward_reaction_prediction",
    *,
    columns: Mapping[str, str] | None = None,
    reaction_column: str | None = None,
    several_products: str = "reject",
    name: str = "uspto",
    streaming: bool = False,
    **files: Any,
) -> Source:
    """Reactions from a table of SMILES.

    The table has columns `reactants`, `product`, and, if known, `reagents`, `id` and
    `reaction_class`, with molecules joined by dots; or one column of reaction SMILES
    `reactants>reagents>product`, whose atom maps are dropped when it is read. Of a CXSMILES tail,
    `|f:…|` says which components belong together, such as the ions of a salt; a row with any other
    tail is an error, because it may change the molecules (radicals, coordinate bonds).

    A row is an error if a side that the task needs is empty, or if its product is already among
    its reactants and reagents.

    Args:
        data: where the rows are, see `open_tables`.
        task: `"forward_reaction_prediction"` (with reagents in the question where there are any),
            `"retrosynthesis"` (the answer is the reactants, without reagents) or
            `"reagent_prediction"`.
        columns: names of the columns, where they differ from `COLUMNS`.
        reaction_column: the column of reaction SMILES, instead of one for each side.
        several_products: `"reject"` makes a row with more than one product an error, `"keep"`
            makes all of them the product.
        name: of the source.
        streaming: see `open_tables`.
        files: other arguments of `open_tables`.

    Raises:
        ValueError: an unknown setting, or a column that is not there.
        FileNotFoundError: there is no such file.
    """
    if task not in TASKS:
        raise ValueError(f"task={task!r}: use one of {', '.join(TASKS)}.")
    if several_products not in ("reject", "keep"):
        raise ValueError(f"several_products={several_products!r}: use 'reject' or 'keep'.")
    unknown = [key for key in columns or {} if key not in COLUMNS]
    if unknown:
        key = unknown[0]
        raise ValueError(
            f"columns names {key!r}{nearest(key, COLUMNS)} Use {', '.join(map(repr, COLUMNS))}."
        )
    names = COLUMNS | dict(columns or {})
    splits = open_tables(data, streaming=streaming, **files)
    if reaction_column:
        check_columns(splits, [reaction_column])
        names |= {side: reaction_column for side in ("reactants", "reagents", "product")}
    else:
        required = ["reactants", "product"]
        required += ["reagents"] if task == "reagent_prediction" else []
        check_columns(splits, [names[side] for side in required])
    # What the user has named must be there.
    check_columns(splits, (columns or {}).values())
    if any(names["id"] not in column_names(table) for table in splits.values()):
        names["id"] = ROW
    read = partial(
        read_reaction,
        task=task,
        columns=names,
        reaction_column=reaction_column,
        keep_products=several_products == "keep",
    )
    return Source(name, task, splits, read, molecule_format="smiles")


def read_reaction(
    row: Mapping[str, Any],
    task: str,
    columns: Mapping[str, str],
    reaction_column: str | None,
    keep_products: bool,
) -> list[RawExample]:
    """The example of one row; see `load_reactions`.

    Raises:
        RowError: the row is no reaction or not one for the task.
    """
    if reaction_column:
        reactants, reagents, products = split_reaction(
            needed_text(row, reaction_column), reaction_column
        )
    else:
        reactants = _split(needed_text(row, columns["reactants"]))
        reagents = _split(str(cell(row, columns["reagents"]) or ""))
        products = _split(needed_text(row, columns["product"]))

    def side(which: str, molecules: Sequence[str]) -> str:
        value = row.get(columns[which])
        if not molecules:
            raise RowError(columns[which], value, f"has no {which}")
        if "" in molecules:
            raise RowError(columns[which], value, f"has an empty molecule in its {which}")
        return ".".join(molecules)

    left, right = side("reactants", reactants), side("product", products)
    middle = side("reagents", reagents) if reagents else ""
    if len(products) > 1 and not keep_products:
        raise RowError(
            columns["product"],
            row.get(columns["product"]),
            f"has {len(products)} products: keep them all with several_products='keep', or drop "
            "the row",
        )
    inputs = _components(reactants + reagents)
    if all(_is_among(product, inputs) for product in _components(products)):
        raise RowError(
            columns["product"], row.get(columns["product"]), "the product is already an input"
        )

    identity = str(cell(row, columns["id"]) or row[ROW])
    reactant_column, product_column = columns["reactants"], columns["product"]
    if task == "forward_reaction_prediction":
        options = {"reagents": ".".join(map(canonical, reagents))} if middle else {}
        sides, origin = (left, right), (reactant_column, product_column)
    elif task == "retrosynthesis":
        options, sides, origin = {}, (right, left), (product_column, reactant_column)
    else:
        options, sides = {}, (f"{left}>>{right}", side("reagents", reagents))
        origin = (reactant_column, columns["reagents"])
    reaction_class = cell(row, columns["reaction_class"])
    group = None if reaction_class is None else str(reaction_class)
    return [RawExample(identity, *sides, options, origin, group)]


def split_reaction(text: str, column: str) -> tuple[list[str], list[str], list[str]]:
    """Split a reaction SMILES into the molecules of its three sides.

    Components that `|f:…|` puts together are one molecule, such as `[Na+].[OH-]`.

    Args:
        text: `reactants>reagents>product`, maybe with a CXSMILES tail.
        column: where it stands, for the error.

    Raises:
        RowError: it has not three sides, or a tail that is not understood.
    """
    reaction, _, tail = text.partition(" ")
    sides = SEPARATOR.split(reaction)
    if len(sides) != 3:
        raise RowError(column, text, "is no reaction: write it as reactants>reagents>product")
    components = [_split(side) for side in sides]
    group_of = {}
    for group in _fragment_groups(tail.strip(), text, column):
        group_of |= dict.fromkeys(group, group[0])
    if group_of and max(group_of) >= sum(map(len, components)):
        raise RowError(column, text, "its |f:…| counts more components than there are")
    position = 0
    result = []
    for side in components:
        molecules: dict[int, list[str]] = {}
        for component in side:
            molecules.setdefault(group_of.get(position, position), []).append(component)
            position += 1
        result.append([".".join(parts) for parts in molecules.values()])
    return result[0], result[1], result[2]


@lru_cache(maxsize=65536)
def canonical(molecule: str) -> str:
    """Canonical SMILES without atom maps; the text itself where it cannot be read."""
    try:
        return canonical_smiles(parse_molecule(molecule, "smiles"))
    except MoleculeError:
        # Whoever makes the example reports it with its reason.
        return molecule


def _fragment_groups(tail: str, text: str, column: str) -> list[list[int]]:
    """The groups of `|f:0.1,3.4|`, as positions of components over the whole reaction."""
    if not tail:
        return []
    match = re.fullmatch(r"\|f:(\d+(?:\.\d+)+(?:,\d+(?:\.\d+)+)*)\|", tail)
    if match is None:
        raise RowError(
            column, text, f"the tail {tail!r} is not understood: only |f:…| is, remove the rest"
        )
    return [sorted(map(int, group.split("."))) for group in match[1].split(",")]


def _split(side: str) -> list[str]:
    return [part.strip() for part in side.split(".")] if side.strip() else []


def _components(molecules: Sequence[str]) -> list[str]:
    """Components of all molecules, so that salts compare ion by ion."""
    return [part for molecule in molecules for part in molecule.split(".")]


def _is_among(molecule: str, others: Sequence[str]) -> bool:
    """Whether one of the others is the same molecule, however it is written."""
    if molecule in others:
        return True
    letters = _letters(molecule)
    # Most molecules differ in their atoms: reading them would take most of the time.
    alike = [other for other in others if _letters(other) == letters]
    return bool(alike) and canonical(molecule) in map(canonical, alike)


def _letters(smiles: str) -> str:
    """The letters of the atoms but hydrogen: the same for every SMILES of a molecule."""
    text = re.sub(r"@[A-Z]{2}\d+", "", smiles).lower()
    return "".join(sorted(letter for letter in text if letter.isalpha() and letter != "h"))
