# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Answers of a benchmark run, kept on disk as they come."""

import json
import os
from collections.abc import Iterable
from pathlib import Path


class PredictionFile:
    """`predictions.jsonl`: one line per row and arm, appended batch by batch.

    A run that is interrupted and started again finds its answers in `answered` and asks only for
    the rest. What the answers belong to is written beside them in `run.json`; a folder that holds
    the answers of another run is refused, because mixing the two would give a score of neither.

    Args:
        folder: output folder of the benchmark, created when missing.
        run: what the answers depend on (model, base, data, …), JSON-serialisable.

    Attributes:
        answered: (row id, property, arm) -> the line's record. The property is part of the key
            because a molecule has one id but a row for each property that is asked.

    Raises:
        ValueError: if the folder holds answers of another run, or a line cannot be read.
    """

    def __init__(self, folder: Path, run: dict[str, str | int | None]):
        self.path = folder / "predictions.jsonl"
        self.run_path = folder / "run.json"
        self.answered: dict[tuple[str, str, str], dict] = {}

        folder.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            self._refuse_another_run(run)
            self._read()
        else:
            # Replaced in one step: a half-written run.json would make the folder unusable.
            unfinished = self.run_path.with_suffix(".tmp")
            unfinished.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
            os.replace(unfinished, self.run_path)

    def append(self, records: Iterable[dict]) -> None:
        """Write records, which hold at least `id`, `property` and `arm`, behind the others."""
        records = list(records)
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(lines)
        self.answered.update({_key(record): record for record in records})

    def _refuse_another_run(self, run: dict) -> None:
        try:
            found = json.loads(self.run_path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ValueError(
                f"{self.path} exists but {self.run_path.name} beside it does not, so it cannot be "
                "told which model its answers belong to: choose another --output_dir"
            ) from error
        different = [
            f"{key} is {run.get(key)!r} but was {found.get(key)!r}"
            for key in {**found, **run}
            if found.get(key) != run.get(key)
        ]
        if different:
            raise ValueError(
                f"{self.path} holds the answers of another run ({'; '.join(different)}): choose "
                "another --output_dir, or delete that folder to start over"
            )

    def _read(self) -> None:
        # Only "\n" ends a line here: str.splitlines would also break at characters that a model
        # may write inside an answer.
        *lines, unfinished = self.path.read_bytes().split(b"\n")
        if unfinished:
            # The last start was stopped in the middle of a line; that row is asked again.
            os.truncate(self.path, self.path.stat().st_size - len(unfinished))
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
                self.answered[_key(record)] = record
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{self.path}, line {number}: {line[:80]!r} is not a prediction ({error}); "
                    "delete the line to have the row asked again"
                ) from error


def _key(record: dict) -> tuple[str, str, str]:
    return record["id"], record["property"], record["arm"]
