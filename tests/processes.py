# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Starting two CPU processes with the shipped configurations of accelerate."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "training" / "configs"
# What a script starts with.
ON_CPU = """
import os

from accelerate import state
from accelerate.utils import DistributedType

# DeepSpeed would first compile a sum over CPU processes, for a minute; its inference alone uses it.
if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

# accelerate switches FSDP on for accelerators alone. Nothing else in FSDP2 needs one.
init = state.AcceleratorState.__init__


def init_with_fsdp(self, *args, fsdp_plugin=None, **kwargs):
    init(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.FSDP
        state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        self.fsdp_plugin = fsdp_plugin


state.AcceleratorState.__init__ = init_with_fsdp
"""


def command(config: str, script: Path, *args: object) -> list[str]:
    """A script in two processes as `training/configs/accelerate/CONFIG.yaml` says, or in one."""
    if config == "single_gpu":
        return [sys.executable, str(script), *map(str, args)]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2"]
    # 0: any free port, as other tests run at the same time.
    launch += ["--config_file", str(CONFIGS / "accelerate" / f"{config}.yaml")]
    return [*launch, "--main_process_port", "0", str(script), *map(str, args)]


def environment() -> dict[str, str]:
    """For processes that can import this checkout and run on CPUs alone."""
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "DS_ACCELERATOR": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }


def run_processes(config: str, script: Path, *args: object) -> str:
    """Run `command` to its end.

    Returns:
        What the processes printed.
    """
    # The configurations name DeepSpeed's own by their path in the checkout.
    result = subprocess.run(
        command(config, script, *args),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-5000:]
    return result.stdout
