# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""CPU time of the metrics: of the scores alone, without imports and reading of files.

    python -m eval.metric_speed [--what reactions|captions] [--pairs FILE.jsonl] [--rows 3300]

FILE.jsonl holds an object with the texts "prediction" and "reference" on each line. Without it,
molecules of the NCI list that RDKit carries are scored: of the predictions a third are right (in
another spelling), a tenth cannot be read, and the others are another molecule of the list.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from rdkit import Chem, RDConfig, rdBase
from rich.console import Console
from rich.table import Table

from modeling_mora.molecules_mora import canonical_smiles


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.metric_speed", description="CPU time of the metrics."
    )
    parser.add_argument("--what", choices=["reactions", "captions"], default="reactions")
    parser.add_argument("--pairs", type=Path, help="JSONL file of predictions and references")
    parser.add_argument("--rows", type=int, default=3300, help="how many pairs to score")
    parser.add_argument("--policy", choices=["strict", "published"], default="strict")
    parser.add_argument("--notation", choices=["smiles", "selfies"], default="smiles")
    args = parser.parse_args(arguments)
    if args.rows < 1:
        parser.error(f"--rows {args.rows}: give at least 1")
    if args.pairs is None and (args.what == "captions" or args.notation == "selfies"):
        parser.error("give --pairs: without it there are only reactions in SMILES")
    return args


def read_pairs(path: Path, rows: int) -> tuple[list[str], list[str]]:
    """Predictions and references of the first lines of a JSONL file.

    Raises:
        ValueError: a line does not hold both, or there are fewer lines than `rows`.
    """
    pairs = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(islice(file, rows), start=1):
            try:
                pair = json.loads(line)
                pairs.append((pair["prediction"], pair["reference"]))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{path}, line {number}: {line[:80]!r} is no object with a prediction and a "
                    f"reference ({error!r})"
                ) from error
    return _split(pairs, rows, str(path))


def make_pairs(rows: int) -> tuple[list[str], list[str]]:
    """Pairs of SMILES made of RDKit's NCI list, the same ones in every run.

    Raises:
        ValueError: the list is too short.
    """
    path = Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi"
    with rdBase.BlockLogs():
        lines = path.read_text(encoding="utf-8").splitlines()
        mols = [mol for line in lines if (mol := Chem.MolFromSmiles(line.split()[0]))]
    draw, pairs = random.Random(0), []
    for mol, other in zip(mols, mols[1:], strict=False):
        kind = draw.choices(["right", "unreadable", "other"], [10, 3, 17])[0]
        if kind == "right":
            prediction = Chem.MolToSmiles(mol, canonical=False)
        else:
            prediction = canonical_smiles(other) + ("(" if kind == "unreadable" else "")
        pairs.append((prediction, canonical_smiles(mol)))
    return _split(pairs[:rows], rows, str(path))


def _split(pairs: list[tuple[str, str]], rows: int, source: str) -> tuple[list[str], list[str]]:
    if len(pairs) < rows:
        raise ValueError(f"{source} gives only {len(pairs)} pairs: pass --rows {len(pairs)}")
    predictions, references = zip(*pairs, strict=True)
    return list(predictions), list(references)


def main(arguments: Sequence[str] | None = None) -> int:
    """Time the metrics and print a table; returns the exit code, 2 when it cannot start."""
    args = parse_arguments(arguments)
    settings = {"policy": args.policy}
    if args.what == "reactions":
        from eval.metrics.fingerprint_similarity import similarity
        from eval.metrics.molecule_match import matching

        metrics = {"molecule_match": matching, "fingerprint_similarity": similarity}
        settings["notation"] = args.notation
    else:
        # Here, because it takes longer to import than the other two and they do not need it.
        from eval.metrics.caption_overlap import overlap

        metrics = {"caption_overlap": overlap}
    try:
        pairs = read_pairs(args.pairs, args.rows) if args.pairs else make_pairs(args.rows)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    table = Table("metric", "CPU seconds", title=f"{args.rows} pairs, policy {args.policy}")
    total = 0.0
    for name, metric in metrics.items():
        start = time.process_time()
        scores = metric.aggregate(metric.score_rows(*pairs, **settings))
        seconds = time.process_time() - start
        total += seconds
        table.add_row(name, f"{seconds:.2f}")
        print(name, *(f"{key}={value}" for key, value in scores.items()), sep="\n  ")
    table.add_row("all", f"{total:.2f}")
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
