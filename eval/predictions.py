# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Answers of a benchmark run, kept on disk as they come."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

# (control, row of the data): one answer.
Key = tuple[str | None, int]

# What was so in all folders before it became a setting.
EARLIER = {"numbers": "greedy"}


class PredictionFolder:
    """The answers of a run, in a folder that several processes write to.

    Each process appends to a file of its own, `answers-00000.jsonl`, and `finish` puts all of them
    in order into `predictions.jsonl`. A run that was killed and is started again finds its answers
    in `answered`, with however many processes it is started. What the answers belong to is written
    beside them in `run.json`; a folder that holds the answers of another run is refused, because
    mixing the two would give a score of neither.

    Args:
        folder: output folder of the benchmark, created when missing.
        run: what the answers depend on (model, base, data, …), JSON-serialisable.
        process: number of this process; process 0 writes what is one for all.

    Attributes:
        answered: (control, row) -> record, one line of the file.

    Raises:
        ValueError: if the folder holds answers of another run, or a line cannot be read.
    """

    def __init__(self, folder: Path, run: dict, process: int = 0):
        self.path = folder / "predictions.jsonl"
        self.run_path = folder / "run.json"
        self.answered: dict[Key, dict] = {}
        self._part = folder / f"answers-{process:05}.jsonl"

        folder.mkdir(parents=True, exist_ok=True)
        if self._files():
            self._refuse_another_run(run)
        elif process == 0:
            replace_file(self.run_path, json.dumps(run, indent=2) + "\n")
        self.read()
        if self._part.exists():
            # So that the next line does not continue half of one.
            os.truncate(self._part, self._part.read_bytes().rfind(b"\n") + 1)

    def read(self) -> None:
        """Take up the answers of all processes so far."""
        for path in self._files():
            # Only "\n" ends a line here: str.splitlines would also break at characters that a
            # model may write inside an answer. What follows the last one was not written whole.
            for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
                try:
                    record = json.loads(line)
                    self.answered[_key(record)] = record
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(
                        f"{path}, line {number}: {line[:80]!r} is not a prediction ({error}); "
                        "delete the line to have the row asked again"
                    ) from error

    def append(self, records: Iterable[dict]) -> None:
        """Write records, which hold at least `control` and `row`, behind this process's others."""
        records = list(records)
        with self._part.open("a", encoding="utf-8") as file:
            file.write("".join(_line(record) for record in records))
        self.answered.update({_key(record): record for record in records})

    def finish(self, controls: Sequence[str | None]) -> None:
        """Put the answers of all processes into one file, ordered by control and row."""
        self.read()
        order = sorted(self.answered, key=lambda key: (controls.index(key[0]), key[1]))
        replace_file(self.path, "".join(_line(self.answered[key]) for key in order))
        for path in self._files():
            if path != self.path:
                path.unlink()

    def _files(self) -> list[Path]:
        parts = sorted(self.path.parent.glob("answers-*.jsonl"))
        return [path for path in (self.path, *parts) if path.exists()]

    def _refuse_another_run(self, run: dict) -> None:
        try:
            found = json.loads(self.run_path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ValueError(
                f"{self.path.parent} holds answers but no {self.run_path.name}, so it cannot be "
                "told which model they belong to: choose another --output_dir"
            ) from error
        found, run = EARLIER | found, EARLIER | run
        different = [
            f"{key} is {run.get(key)!r} but was {found.get(key)!r}"
            for key in {**found, **run}
            if found.get(key) != run.get(key)
        ]
        if different:
            raise ValueError(
                f"{self.path.parent} holds the answers of another run ({'; '.join(different)}): "
                "choose another --output_dir, or delete that folder to start over"
            )


def replace_file(path: Path, text: str) -> None:
    """Write a file in one step: whoever is killed meanwhile leaves the old one or the new one."""
    unfinished = path.with_name(f"{path.name}.tmp")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


def _line(record: dict) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _key(record: dict) -> Key:
    return record["control"], record["row"]
