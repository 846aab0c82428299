# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""One example from molecule to labels and back, to be looked at before anything is trained."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from modeling_mora import MoleculeFeatureExtractor
from modeling_mora.chat_mora import read_answer
from modeling_mora.tasks_mora import Task
from training.tokenization import IGNORE_INDEX, tokenize_example

# Of a long answer the first tokens and the last, which ends the turn.
SHOWN_TOKENS = 24


def example_table(
    example: Mapping[str, Any],
    task: Task,
    tokenizer: Any,
    feature_extractor: MoleculeFeatureExtractor,
    max_length: int,
) -> Table:
    """What becomes of one example: its graph, the tokens that carry loss, and its answer read back.

    Args:
        example: a row with the columns of `training.data`.
        task: the task of the row, with its settings.
        tokenizer: a tokenizer with a chat template.
        feature_extractor: makes the graph.
        max_length: longest example in tokens.
    """
    tokenized = tokenize_example(example["prompt"], example["answer"], tokenizer, max_length)
    ids = [token for token in tokenized["labels"] if token != IGNORE_INDEX]
    decoded = read_answer(tokenizer, ids)
    rows = {
        "row": example["id"],
        "question": example["prompt"],
        "graph": _graph(example["molecule"], feature_extractor),
        "tokens": f"{len(tokenized['input_ids'])}, {len(ids)} of them with loss:\n"
        + _tokens(ids, tokenizer),
        "labels decoded": decoded,
        "read as": repr(task.parse(decoded, example["property"])),
    }
    title = f"One example: {example['source']}, {example['task']}"
    table = Table(title=Text(title), title_justify="left", show_header=False, show_lines=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        # As text: rich would take the brackets of a SMILES for its own markup.
        table.add_row(name, Text(value))
    return table


def _graph(smiles: str | None, feature_extractor: MoleculeFeatureExtractor) -> str:
    if smiles is None:
        return "none"
    graph = feature_extractor.featurize(smiles, "smiles")
    # Each bond is there in both directions.
    atoms, bonds = len(graph["graph_atoms"]), graph["graph_bonds"].shape[1] // 2
    return f"{smiles}\n{atoms} atoms, {bonds} bonds"


def _tokens(ids: Sequence[int], tokenizer: Any) -> str:
    """The tokens as text, in quotation marks because some begin with a blank."""
    texts = [repr(tokenizer.decode([token])) for token in ids]
    if len(texts) > SHOWN_TOKENS:
        left_out = len(texts) - SHOWN_TOKENS
        texts = [*texts[: SHOWN_TOKENS - 2], f"… {left_out} more …", *texts[-2:]]
    return " ".join(texts)
