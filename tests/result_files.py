# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Result folders of toy models: made-up answers of a wished quality to made-up questions.

The chemistry is put together from fragments, so that any number of rows can be had; the answers
come from a seeded random generator and the scores from the metric modules.
"""

import contextlib
import hashlib
import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from rdkit import Chem

from eval.metrics.caption_overlap.overlap import aggregate as aggregate_overlap
from eval.metrics.caption_overlap.overlap import score_rows as score_overlap
from eval.metrics.fingerprint_similarity.similarity import aggregate as aggregate_similarity
from eval.metrics.fingerprint_similarity.similarity import score_rows as score_similarity
from eval.metrics.molecule_match.matching import aggregate as aggregate_match
from eval.metrics.molecule_match.matching import score_rows as score_match
from eval.metrics.property_regression.regression import aggregate as aggregate_regression
from eval.metrics.property_regression.regression import score_rows as score_regression
from eval.metrics.property_roc_auc.roc_auc import aggregate as aggregate_classes
from eval.metrics.property_roc_auc.roc_auc import score_rows as score_classes
from modeling_mora.molecules_mora import (
    MoleculeError,
    canonical_smiles,
    parse_molecule,
    to_selfies,
)

# Each with one free valence at its end.
RESTS = {
    "methyl": "C",
    "ethyl": "CC",
    "isopropyl": "CC(C)",
    "cyclohexyl": "C1CCCCC1",
    "phenyl": "c1ccccc1",
    "tolyl": "Cc1ccc(cc1)",
    "chlorophenyl": "Clc1ccc(cc1)",
    "naphthyl": "c1ccc2ccccc2c1",
    "pyridyl": "c1ccncc1",
    "benzyl": "c1ccccc1C",
    "trifluoroethyl": "FC(F)(F)C",
    "morpholinoethyl": "O1CCN(CC1)CC",
    "methoxyphenyl": "COc1ccc(cc1)",
    "biphenylyl": "c1ccc(cc1)c1ccc(cc1)",
    "thienyl": "c1ccsc1",
}
# Reaction class -> what stands between the two rests in reactants and product.
REACTIONS = {
    "1": ("{a}Br.O{b}", "{a}O{b}"),
    "2": ("{a}C(=O)O.N{b}", "{a}C(=O)N{b}"),
    "3": ("{a}B(O)O.Br{b}", "{a}{b}"),
    "6": ("{a}C(=O)OC.C{b}", "{a}C(=O)O.C{b}"),
    "7": ("{a}C(=O){b}", "{a}C(O){b}"),
    "8": ("{a}C(O){b}", "{a}C(=O){b}"),
    "9": ("{a}CO.S{b}", "{a}CS{b}"),
}


def toy_rows(task: str, n: int, seed: int = 0) -> list[dict]:
    """Questions of a task without answers, records of `predictions.jsonl` but for the answer."""
    chance = random.Random(f"rows-{seed}")
    names = list(RESTS)
    rows = []
    for i in range(n):
        first, second = chance.choice(names), chance.choice(names)
        group = chance.choice(list(REACTIONS))
        # What comes second is attached at its first atom.
        parts = {"a": RESTS[first], "b": _reverse(RESTS[second])}
        reactants, product = (_canonical(side.format(**parts)) for side in REACTIONS[group])
        rows.append(_row(task, i, reactants, product, group, (first, second)))
    return rows


def _reverse(smiles: str) -> str:
    """The same rest, written from its last atom."""
    molecule = Chem.MolFromSmiles(smiles)
    return Chem.MolToSmiles(molecule, rootedAtAtom=molecule.GetNumAtoms() - 1)


def _canonical(smiles: str) -> str:
    return Chem.CanonSmiles(smiles)


def _row(
    task: str, number: int, reactants: str, product: str, group: str, names: tuple[str, str]
) -> dict:
    row = {"id": f"toy-{number}", "source": "toy", "task": task, "property": None, "group": None}
    if task == "retrosynthesis":
        row |= {"group": group, "molecule": product, "reference": reactants}
        row["prompt"] = f"Which reactants give this product? {product}"
    elif task in ("forward_reaction_prediction", "reagent_prediction"):
        row |= {"molecule": reactants, "reference": product}
        row["prompt"] = f"Predict the product of these reactants: {reactants}"
    elif task == "property_prediction":
        molecule = Chem.MolFromSmiles(product)
        aromatic = sum(atom.GetIsAromatic() for atom in molecule.GetAtoms())
        value = 0.30 - 0.006 * aromatic + 0.001 * molecule.GetNumHeavyAtoms()
        row |= {"property": "gap", "molecule": product, "reference": f"{value:.4f}"}
        row["prompt"] = f"HOMO-LUMO gap of {product} in hartree?"
    elif task == "property_classification":
        yes = product.count("N") + product.count("n") > 0
        row |= {"property": "BBBP", "molecule": product, "reference": "Yes" if yes else "No"}
        row["prompt"] = f"Does {product} cross the blood-brain barrier? Yes or No."
    else:
        text = f"The molecule is made of a {names[0]} group and a {names[1]} group."
        row |= {"molecule": product, "reference": text}
        row["prompt"] = f"Describe this molecule: {product}"
    return row


def toy_answer(row: dict, quality: float, chance: random.Random) -> dict:
    """An answer that is right with probability `quality`, and otherwise wrong in various ways."""
    right, text = chance.random() < quality, row["reference"]
    answer = {"finished": True}
    if row["task"] == "property_prediction":
        error = chance.gauss(0, 0.04 * (1 - quality))
        text = f"{float(text) + error:.4f}" if right or chance.random() < 0.9 else "not sure"
    elif row["task"] == "property_classification":
        logit = chance.gauss(3 * quality, 1.5) * (1 if text == "Yes" else -1)
        answer["p_yes"] = round(1 / (1 + math.exp(-logit)), 4)
        text = "Yes" if logit > 0 else "No"
    elif row["task"] in ("molecule_captioning", "molecule_qa"):
        text = text if right else " ".join(chance.sample(text.split(), 6))
    elif not right:
        wrong = (
            text.replace("c1ccccc1", "c1ccncc1", 1),
            text.replace("C", "CC", 1),
            text.split(".")[0],
            row["molecule"],
            text[: len(text) // 2] + "(",
            "",
            "The answer is ethanol.",
        )
        text = chance.choices(wrong, weights=(4, 4, 3, 2, 1, 0.5, 0.5))[0]
    return answer | {"text": text}


def write_results(
    folder: Path,
    task: str = "retrosynthesis",
    *,
    model: str = "runs/toy-mora",
    method: str = "mora",
    n: int = 120,
    quality: float = 0.6,
    seed: int = 0,
    policy: str = "strict",
    notation: str = "smiles",
    controls: Sequence[str] = (),
    unit: str | None = None,
    properties: Sequence[str] = (),
    source: str = "toy",
    answer: Callable[[dict], dict] | None = None,
    **settings,
) -> Path:
    """Write `results.json` and `predictions.jsonl` of a toy model.

    Args:
        folder: where they go; made when missing.
        task: key of `TASKS`.
        model: its name.
        method: how it was made.
        n: number of rows of each property.
        quality: how often an answer is right.
        seed: of the answers; the questions are always the same.
        policy: how answers are counted.
        notation: of answers that are molecules.
        controls: worse and worse versions of the same model.
        unit: of the values.
        properties: asked for each row, in place of the task's one.
        source: of the rows.
        answer: makes the answer to a row, in place of `toy_answer`.
        settings: what differs in `results.json`.

    Returns:
        Path of `results.json`.
    """
    lines, scores = [], []
    unit = unit or ("hartree" if task == "property_prediction" else None)
    for number, control in enumerate((None, *controls)):
        chance = random.Random(f"{model}-{seed}-{control}")
        asked = []
        if control == "training_mean":
            continue
        for row in toy_rows(task, n):
            for property in properties or (row["property"],):
                row = row | {"property": property, "source": source}
                made = answer(row) if answer else toy_answer(row, quality / 3**number, chance)
                line = {**row, "control": control, "finished": True, **made}
                asked.append(_spelled(line) if notation == "selfies" else line)
        lines += asked
        for property in dict.fromkeys(line["property"] for line in asked):
            part = [line for line in asked if line["property"] == property]
            scores.append(
                score_entry(part, task, property, control, policy, notation, unit, source)
            )
    if "training_mean" in controls:
        metrics = {"mae": _value(0.0392), "parsed": _value(1.0)}
        scores.append({**scores[0], "control": "training_mean", "metrics": metrics})
    results = {
        "schema": 1,
        "model": model,
        "method": method,
        "base_model": "toy/llm",
        "base_revision": None,
        "base_fingerprint": "b" * 64,
        "adapter_sha256": hashlib.sha256(model.encode()).hexdigest(),
        "data": {
            "name": source,
            "split": "test",
            "dataset_sha256": "d" * 64,
            "rows_in_split": n,
            "rows_scored": n,
        },
        "policy": policy,
        "decoding": {"strategy": "greedy", "max_new_tokens": {task: 17}, "batch_size": 32},
        "seeds": {"split": 0, "bootstrap": 0, "shuffle": 0},
        "bootstrap": {"resamples": 1000, "level": 0.95},
        "scores": scores,
        "versions": {"python": "3.11.7", "torch": "2.9.0"},
        "device": "cpu",
        "processes": 1,
        "command": f"python -m eval.benchmark --model {model}",
        "finished_at": "2026-11-23T18:00:00+00:00",
        "wall_time_s": 123.4,
    }
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / "predictions.jsonl").write_text(text, encoding="utf-8")
    path = folder / "results.json"
    path.write_text(json.dumps(results | settings), encoding="utf-8")
    return path


def _spelled(line: dict) -> dict:
    """A line whose molecules are SELFIES; what is no SMILES stays as it is."""
    spelled = dict(line)
    for key in ("reference", "text"):
        with contextlib.suppress(MoleculeError):
            spelled[key] = to_selfies(canonical_smiles(parse_molecule(line[key], "smiles")))
    return spelled


def score_entry(
    lines: Sequence[dict],
    task: str,
    property: str | None,
    control: str | None,
    policy: str,
    notation: str,
    unit: str | None,
    source: str,
) -> dict:
    """An element of `scores` for these lines."""
    texts = [line["text"] for line in lines]
    truths = [line["reference"] for line in lines]
    if task == "property_prediction":
        read = [line["text"] if line["finished"] else None for line in lines]
        values = [float(truth) for truth in truths]
        found = aggregate_regression(score_regression(read, values, policy=policy, unit=unit or ""))
    elif task == "property_classification":
        found = aggregate_classes(
            score_classes(
                [line["p_yes"] for line in lines],
                [int(truth == "Yes") for truth in truths],
                policy=policy,
            )
        )
    elif task in ("molecule_captioning", "molecule_qa"):
        found = aggregate_overlap(score_overlap(texts, truths, policy=policy))
    else:
        known = {"policy": policy, "notation": notation}
        found = aggregate_match(score_match(texts, truths, **known))
        found |= aggregate_similarity(score_similarity(texts, truths, **known))
    return {
        "task": task,
        "source": source,
        "property": property,
        "notation": notation,
        "unit": unit,
        "control": control,
        "n": len(lines),
        "tokenizer": "words" if task in ("molecule_captioning", "molecule_qa") else None,
        "metrics": {name: _value(value) for name, value in found.items()},
    }


def _value(value: float | None) -> dict:
    """A score with an interval of a twentieth around it."""
    if value is None:
        return {"value": None, "low": None, "high": None}
    high = 1.05 * value if value > 1 else min(1.05 * value, 1.0)
    return {"value": value, "low": 0.95 * value, "high": high}
