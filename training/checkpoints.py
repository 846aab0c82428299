# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are there whole or not at all, and the one to go on from.

A checkpoint is written in `_unfinished` and moved out of it when all of it is on the disk. So
`checkpoint-*` is complete, whenever the run was killed.
"""

import errno
import json
import os
import re
import shutil
from pathlib import Path

from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

# The underscore keeps it from being uploaded to the Hub.
UNFINISHED = "_unfinished"


class DiskFullError(OSError):
    """There is no room for a checkpoint."""


def find_checkpoints(output_dir: Path) -> tuple[list[Path], list[Path]]:
    """The checkpoints of a run.

    Args:
        output_dir: of the run; it need not exist.

    Returns:
        The complete ones, oldest first, and the half-written ones.
    """
    complete, unfinished = {}, []
    for folder in (output_dir, output_dir / UNFINISHED):
        for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
            match = re.fullmatch(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)", path.name)
            if match and is_complete(path):
                complete[int(match[1])] = path
            elif match:
                unfinished.append(path)
    return [complete[step] for step in sorted(complete)], sorted(unfinished)


def is_complete(checkpoint: Path) -> bool:
    """Whether a folder holds a checkpoint that a run can go on from.

    The Trainer writes its own state last, so the lack of it shows those checkpoints that another
    program was writing when it was killed.
    """
    if checkpoint.resolve().parent.name == UNFINISHED:
        return False
    try:
        json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return False
    return True


def choose_checkpoint(output_dir: Path) -> tuple[Path, str]:
    """The last complete checkpoint of a run.

    Args:
        output_dir: of the run.

    Returns:
        The checkpoint, and a line that names it and the half-written ones that are left out.

    Raises:
        ValueError: there is no complete one.
    """
    complete, unfinished = find_checkpoints(output_dir)
    left_out = ""
    if unfinished:
        names = ", ".join(str(path.relative_to(output_dir)) for path in unfinished)
        left_out = f" Left out, as half-written: {names}."
    if not complete:
        raise ValueError(
            f"resume_from_checkpoint=true: no complete checkpoint-* in {str(output_dir)!r}."
            f"{left_out} Start the run without it."
        )
    return complete[-1], f"Going on from {complete[-1]}.{left_out}"


def remove_unfinished(output_dir: Path) -> None:
    """Delete what a killed run was writing; half-written checkpoints of other programs stay."""
    if (output_dir / UNFINISHED).exists():
        shutil.rmtree(output_dir / UNFINISHED)


def finish_checkpoint(checkpoint: Path) -> Path:
    """Move a checkpoint out of `_unfinished`, in place of an earlier one of the same step.

    Args:
        checkpoint: the written one, `OUTPUT_DIR/_unfinished/checkpoint-N`.

    Returns:
        Its place from now on, `OUTPUT_DIR/checkpoint-N`.
    """
    for path in [*checkpoint.rglob("*"), checkpoint]:
        sync(path)
    finished = checkpoint.parents[1] / checkpoint.name
    if finished.exists():
        os.rename(finished, checkpoint.with_name("replaced"))
    os.rename(checkpoint, finished)
    sync(finished.parent)
    shutil.rmtree(checkpoint.parent)
    return finished


def sync(path: Path) -> None:
    """Wait until a file, or the list of files in a folder, is on the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_room(output_dir: Path, needed: int, name: str) -> None:
    """Raise a `DiskFullError` unless the disk has room for a checkpoint.

    Args:
        output_dir: of the run.
        needed: size of the checkpoint in bytes.
        name: what the message calls it.
    """
    if free_space(output_dir) < needed:
        raise disk_full(output_dir, needed, name)


def disk_full(output_dir: Path, needed: int, name: str) -> DiskFullError:
    """The error that says what is missing, and which checkpoints there are; see `check_room`."""
    complete, _ = find_checkpoints(output_dir)
    again = "start again"
    if complete:
        again = "run the same command with `--resume_from_checkpoint true`"
    return DiskFullError(
        f"No room in {str(output_dir)!r} for {name}: it needs about {megabytes(needed)} and "
        f"{megabytes(free_space(output_dir))} are free. Complete and kept: "
        f"{', '.join(path.name for path in complete) or 'no checkpoint yet'}. Free some space (a "
        f"lower save_total_limit takes less), then {again}."
    )


def is_disk_full(error: Exception, folder: Path) -> bool:
    """Whether writing into a folder failed for lack of space.

    safetensors has no error number and cleans up after itself; torch's message says nothing at all.
    """
    return (
        getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        or "No space left" in str(error)
        or free_space(folder) < 1e6
    )


def free_space(folder: Path) -> int:
    """Bytes that are free on the disk of a folder, which need not exist yet."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def state_size(trained: int, weights: int, layout: str) -> int:
    """Bytes of what a checkpoint holds beside `model.safetensors` to go on from, with AdamW.

    Optimizers that keep less of each weight than AdamW's two moments take less.

    Args:
        trained: number of trained values.
        weights: their size in bytes.
        layout: `ddp` (also one process), `fsdp2`, or `zero0` to `zero3` for DeepSpeed's stages.
    """
    moments = 2 * weights
    # DeepSpeed's own copy of the weights, and AdamW's two moments.
    in_float32 = 3 * 4 * trained
    sizes = {
        "ddp": moments,
        "fsdp2": weights + moments,
        "zero0": weights + moments,
        "zero1": weights + in_float32,
        "zero2": weights + in_float32,
        "zero3": in_float32,
    }
    return sizes[layout]


def folder_size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def megabytes(size: int) -> str:
    """A number of bytes for people to read."""
    return f"{size / 1e6:,.1f} MB"
