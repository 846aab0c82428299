# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Package metadata. Only `modeling_mora` is installed; the other folders run from a checkout."""

from pathlib import Path

from setuptools import setup

EXTRAS = {
    # python -m training.…
    "train": [
        "accelerate>=1.6",
        "datasets>=4",
        "deepspeed>=0.17 ; platform_system == 'Linux'",
        "filelock>=3.12",
        "gguf>=0.10",
        "matplotlib>=3.8",
        "pandas>=2",
        "pyyaml>=6",
        "rich>=13",
        "tensorboard>=2.15",
    ],
    # python -m eval.…
    "eval": [
        "accelerate>=1.1",
        "datasets>=4",
        "evaluate>=0.4.3",
        "matplotlib>=3.8",
        "nltk>=3.9",
        "pandas>=2",
        "pyyaml>=6",
        "rapidfuzz>=3.6",
        "rich>=13",
        "rouge-score>=0.1.2",
        "scikit-learn>=1.3",
        "scipy>=1.11",
    ],
    # python -m hub_cards.…
    "hub": ["jinja2>=3.1"],
    # make test, make lint; six is for OGB, which make setup installs without its dependencies
    "dev": [
        "lm-eval>=0.4.9",
        "pytest>=8",
        "pytest-xdist>=3.5",
        "ruff>=0.9",
        "six>=1.16",
        "torch-geometric>=2.6",
    ],
}

setup(
    name="modeling-mora",
    version="0.1.0",
    description="Molecule-aware low-rank adaptation: LLM weights generated from a molecule's graph",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The MoRA authors",
    license="Apache-2.0",
    packages=["modeling_mora"],
    python_requires=">=3.10,<3.14",
    install_requires=[
        "huggingface-hub>=1.31",
        "numpy>=1.24",
        "peft>=0.20",
        "rdkit>=2023.9",
        "safetensors>=0.8",
        "selfies>=2.1",
        "torch>=2.6",
        "tqdm>=4.60",
        "transformers>=5.17,<6",
    ],
    extras_require=EXTRAS,
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Chemistry",
    ],
)
