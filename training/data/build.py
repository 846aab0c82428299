# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""From the rows of a source to examples, and what cannot become one to a rejection.

Work goes through `datasets`' `map`: several processes, a cache that makes a second start
immediate, and streams that are read as they are asked for.
"""

import copy
import hashlib
import inspect
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import pyarrow.compute as pc
from datasets import Dataset, DatasetDict, Features, IterableDataset, IterableDatasetDict, Value
from datasets.fingerprint import Hasher

from modeling_mora import (
    feature_extraction_mora,
    molecules_mora,
    numbers_mora,
    tasks_mora,
)
from modeling_mora.molecules_mora import MoleculeError, canonical_smiles, parse_molecule
from modeling_mora.reaction_tasks_mora import MoleculeAnswer
from modeling_mora.tasks_mora import Task, get_task
from training.data.files import ROW
from training.data.rejections import RejectedRowError, Rejections
from training.data.source import RawExample, RowError, Source

COLUMNS = ("task", "prompt", "answer", "molecule", "id", "source", "property", "group")
REJECTED = "rejected"
ROW_NUMBER = "row"
FEATURES = Features(
    {
        **{column: Value("string") for column in (*COLUMNS, REJECTED)},
        ROW_NUMBER: Value("int64"),
    }
)

PHRASINGS = ("first", "mixed")
# Their prompts are short because every token costs training time, and asked by name.
FIRST_BY_DEFAULT = ("property_prediction", "property_classification")
# Arguments of `Task.question` that hold molecules; they are checked and made canonical.
MOLECULE_OPTIONS = ("reagents",)


@dataclass(frozen=True)
class _Job:
    """All that the examples depend on besides the rows; its hash is part of the cache's key."""

    source: str
    task: str
    task_settings: dict[str, Any]
    read: Callable[[dict[str, Any]], list[RawExample]]
    molecule_format: str
    feature_extractor: Any
    phrasings: str
    split: str
    strict: bool
    code: str


def build_examples(
    source: Source,
    feature_extractor: Any,
    *,
    phrasings: str | None = None,
    num_proc: int | None = None,
    strict: bool = False,
    max_rejected: float = 0.05,
    rejected_path: Path | str | None = None,
    check: bool = True,
    row_numbers: bool = False,
) -> tuple[DatasetDict | IterableDatasetDict, Rejections]:
    """Turn every row of a source into examples, or into a rejection that says why not.

    Args:
        source: what is read.
        feature_extractor: a `MoleculeFeatureExtractor`; a molecule that it does not take is
            rejected.
        phrasings: `"first"` asks with the task's first wording alone; `"mixed"` gives each question
            one of the task's wordings, always the same one. None is `"first"` for the tasks on
            properties and labels, otherwise `"mixed"`.
        num_proc: processes; None for one. Not for streams.
        strict: stop at the first rejected row.
        max_rejected: largest share of examples that may be rejected.
        rejected_path: JSON-lines file to which rejections are appended.
        check: judge the share now; False for who rejects more and then calls `Rejections.check`.
        row_numbers: keep the column `row`, see `Rejections.add`. Not for streams.

    Returns:
        The splits of the source with the string columns `COLUMNS`; `molecule` is the canonical
        SMILES of what becomes the graph, `property` the property or label asked for, or None, and
        `group` the class of a reaction, or None.
        And the rejections. Of a stream nothing is read yet: rejections are counted as it is
        read, in the process that reads it; `Rejections.check` judges them all at its end.

    Raises:
        TooManyRejectedError: more than `max_rejected`; of a stream, while it is read, once it has
            given enough examples to judge.
        RejectedRowError: with `strict`, names row, column, value and reason.
        ValueError: unknown phrasings or task, or settings that the task does not take.
    """
    if phrasings is None:
        phrasings = "first" if source.task in FIRST_BY_DEFAULT else "mixed"
    if phrasings not in PHRASINGS:
        raise ValueError(f"phrasings={phrasings!r}: use one of {', '.join(PHRASINGS)}.")
    settings = copy.deepcopy(dict(source.task_settings))
    get_task(source.task, **copy.deepcopy(settings))  # so that wrong settings show here
    job = _Job(
        source=source.name,
        task=source.task,
        task_settings=settings,
        read=source.read,
        molecule_format=source.molecule_format,
        feature_extractor=feature_extractor,
        phrasings=phrasings,
        split="",
        strict=strict,
        code=code_fingerprint(source.read),
    )
    rejections = Rejections(source.name, rejected_path, max_rejected)
    splits = {}
    for split, rows in source.splits.items():
        split_job = replace(job, split=split)
        if isinstance(rows, IterableDataset):
            splits[split] = _build_stream(rows, split_job, rejections)
        else:
            built = _build_split(rows, split_job, rejections, num_proc)
            splits[split] = built if row_numbers else built.remove_columns(ROW_NUMBER)
    if any(isinstance(rows, IterableDataset) for rows in source.splits.values()):
        return IterableDatasetDict(splits), rejections
    if check:
        rejections.check()
    return DatasetDict(splits), rejections


def code_fingerprint(read: Callable) -> str:
    """Hash of the code that turns rows into examples, so that the cache forgets old results.

    `datasets` itself hashes functions of installed modules by their name alone.
    """
    while isinstance(read, partial):
        read = read.func
    modules = [tasks_mora, molecules_mora, numbers_mora, feature_extraction_mora]
    modules.append(sys.modules.get(read.__module__))
    paths = {inspect.getsourcefile(m) for m in modules if getattr(m, "__file__", None)}
    # Readers share helpers, all of them in this folder.
    paths.update(str(path) for path in Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(Path(path).read_bytes())
    digest.update(f"{version('rdkit')} {version('selfies')}".encode())
    return digest.hexdigest()


def processes(num_proc: int | None, rows: int) -> int | None:
    """What `map` shall be told: None, for none besides this one, or a number up to `rows`."""
    number = min(num_proc or 1, rows)
    return number if number > 1 else None


def cache_file(rows: Dataset, job: Any) -> str | None:
    """Where `map` shall keep what a job makes of rows; None where `datasets` knows or keeps none.

    It keeps results beside the files of a data set, and those of one in memory nowhere.
    """
    if rows.cache_files or not datasets.is_caching_enabled():
        return None
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "mora"
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder / f"{Hasher.hash([rows._fingerprint, job])}.arrow")


def _build_split(rows: Dataset, job: _Job, rejections: Rejections, num_proc: int | None) -> Dataset:
    built = rows.map(
        _build_batch,
        batched=True,
        with_indices=True,
        remove_columns=rows.column_names,
        features=FEATURES,
        fn_kwargs={"job": job},
        num_proc=processes(num_proc, len(rows)),
        cache_file_name=cache_file(rows, job),
        desc=f"{job.source} {job.split}",
    )
    rejected = built.data.column(REJECTED)
    for line in rejected.drop_null().to_pylist():
        rejections.add(job.split, **json.loads(line))
    good = pc.is_null(rejected).to_numpy()
    rejections.accepted += int(good.sum())
    if not good.all():
        built = built.select(good.nonzero()[0])
    return built.remove_columns(REJECTED)


def _build_stream(rows: IterableDataset, job: _Job, rejections: Rejections) -> IterableDataset:
    # A stream of JSON does not know its columns before its first row.
    columns = rows.column_names or list(next(iter(rows), {}))
    built = rows.map(
        _build_batch,
        batched=True,
        with_indices=True,
        remove_columns=columns,
        features=FEATURES,
        fn_kwargs={"job": job},
    )
    built = built.filter(partial(_take, split=job.split, rejections=rejections))
    return built.remove_columns([REJECTED, ROW_NUMBER])


def _take(example: dict[str, Any], split: str, rejections: Rejections) -> bool:
    """Count one row of a stream; False for a rejected one."""
    if example[REJECTED] is None:
        rejections.accepted += 1
        return True
    rejections.add(split, **json.loads(example[REJECTED]), once=True)
    rejections.check_stream()
    return False


def _build_batch(batch: dict[str, list], indices: list[int], job: _Job) -> dict[str, list]:
    """Columns of `FEATURES`; a rejected row has nothing but a JSON text in `rejected`."""
    task = get_task(job.task, **copy.deepcopy(job.task_settings))
    built = {column: [] for column in FEATURES}
    for index, values in zip(indices, zip(*batch.values(), strict=True), strict=True):
        row = dict(zip(batch, values, strict=True))
        number = _row_number(row, index)
        for example in _build_row(row, index, task, job):
            if isinstance(example, _Rejected):
                if job.strict:
                    raise RejectedRowError(
                        f"Source {job.source!r}, split {job.split!r}, row {number} "
                        f"({example.id!r}), column {example.column!r} holds {example.value!r}: "
                        f"{example.reason} (strict: this is the first rejected row)"
                    )
                line = {"row": number, **vars(example)}
                example = {REJECTED: json.dumps(line, ensure_ascii=False, default=str)}
            for column, cells in built.items():
                cells.append(number if column == ROW_NUMBER else example.get(column))
    return built


@dataclass(frozen=True)
class _Rejected:
    """The arguments of `Rejections.add` but the split and the row's number."""

    id: str
    column: str
    value: Any
    reason: str
    examples: int = 1


def _row_number(row: dict[str, Any], index: int) -> int:
    """The position of a row among those of its split or file, from 1."""
    # Rows that a source has left out count.
    position = str(row.get(ROW) or "").rpartition("-")[2]
    return 1 + (int(position) if position.isdecimal() else index)


def _build_row(
    row: dict[str, Any], index: int, task: Task, job: _Job
) -> Iterator[dict[str, Any] | _Rejected]:
    try:
        raws = job.read(row)
    except RowError as error:
        id = error.id or row.get("id") or row.get(ROW) or f"row {index}"
        yield _Rejected(str(id), error.column, error.value, error.reason)
        return
    # All questions about a molecule share its parsing.
    graphs: dict[str, tuple[str, str] | None] = {}
    for raw in raws:
        if raw.molecule not in graphs:
            try:
                graphs[raw.molecule] = _read_molecule(raw.molecule, task, job)
            except MoleculeError as error:
                graphs[raw.molecule] = None
                lost = sum(other.molecule == raw.molecule for other in raws)
                yield _Rejected(raw.id, raw.columns[0], raw.molecule, str(error), lost)
        if graphs[raw.molecule] is not None:
            yield _build_example(raw, *graphs[raw.molecule], task, job)


def _read_molecule(text: str, task: Task, job: _Job) -> tuple[str, str]:
    """Canonical SMILES of what a question is about, and of its graph."""
    molecule = task.read(text, job.molecule_format)
    graph = task.graph(molecule)
    if graph != molecule:  # parts that are canonical make no canonical whole
        graph = canonical_smiles(parse_molecule(graph, "smiles"))
    job.feature_extractor.featurize(graph, "smiles")
    return molecule, graph


def _build_example(
    raw: RawExample, molecule: str, graph: str, task: Task, job: _Job
) -> dict[str, Any] | _Rejected:
    options = dict(raw.options)
    name = options.get("property", options.get("label"))
    column, value = raw.columns[0], raw.molecule
    try:
        for option in MOLECULE_OPTIONS:
            if options.get(option):
                column, value = option, options[option]
                options[option] = canonical_smiles(parse_molecule(value, job.molecule_format))
        phrasing = _phrasing(task, molecule, options) if job.phrasings == "mixed" else 0
        prompt = task.question(molecule, phrasing=phrasing, **options)
    except MoleculeError as error:
        return _Rejected(raw.id, column, value, str(error))
    try:
        answer = task.answer(raw.answer, name)
    except (TypeError, ValueError) as error:
        return _Rejected(raw.id, raw.columns[1], raw.answer, str(error))
    if not _reads_back(answer, raw.answer, name, task):
        reason = f"the answer {answer!r} is not read back as what it stands for"
        return _Rejected(raw.id, raw.columns[1], raw.answer, reason)
    return {
        "task": job.task,
        "prompt": prompt,
        "answer": answer,
        "molecule": graph,
        "id": raw.id,
        "source": job.source,
        "property": name,
        "group": raw.group,
    }


def _phrasing(task: Task, molecule: str, options: dict[str, Any]) -> int:
    # From the question itself and not from the row's id: the same question in another row has the
    # same wording, and is found again when splits are compared.
    text = json.dumps([molecule, options], sort_keys=True, default=str)
    return zlib.crc32(text.encode()) % len(task.prompts)


def _reads_back(answer: str, value: Any, name: str | None, task: Task) -> bool:
    """Whether evaluation will read the answer of the data as intended."""
    parsed = task.parse(answer, name)
    if isinstance(task, MoleculeAnswer) and task.notation == "selfies":
        # A SELFIES may decode to another molecule than it was made from.
        return parsed == replace(task, notation="smiles").answer(value)
    return parsed is not None
