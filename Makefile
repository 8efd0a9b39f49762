# Two commands do everything: `make demo` and `make test`. Each makes .venv and installs what it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-all lint tables clean

demo: $(VENV)/installed
	@$(BIN)/python -m lightning_zoo demo instances

test: $(VENV)/installed-test lint
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

test-all: $(VENV)/installed-test lint
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "not gpu and not network and not parity"

lint: $(VENV)/installed-test
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo "run: ruff format ."; exit 1; }
	@$(BIN)/mypy --no-error-summary

tables: $(VENV)/installed
	@$(BIN)/python scripts/update_readme.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV), this takes a minute or two"
	@$(PIP) -e .
	@touch $@

$(VENV)/installed-test: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV), this takes a minute or two"
	@$(PIP) -e '.[test]'
	@touch $@ $(VENV)/installed
