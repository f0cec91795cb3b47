# Needs Python 3.10 to 3.13 and make. Every target makes what it needs in .venv first; `make` lists the targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PYTEST := $(BIN)/python -m pytest -n 2
HTML   := docs/_build/html

# One thread in each process: two busy threads per process make a small machine many times slower.
test test-all bench: export OMP_NUM_THREADS := 1
test test-all bench: export MKL_NUM_THREADS := 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check docs bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.runs ## sample, slim and condense with what is installed, with reports, in minutes on two cores
	$(BIN)/aerogel demo

test: $(VENV)/.tools ## the tests, without those that take minutes
	$(PYTEST) -m "not slow"

test-all: $(VENV)/.tools ## all tests
	$(PYTEST)

check: $(VENV)/.tools ## lint, format, types, import layers, and the documentation without a warning
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/sphinx-build --quiet --fresh-env --fail-on-warning --keep-going docs $(HTML)

docs: $(VENV)/.tools ## the documentation, as HTML
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs $(HTML)
	@echo "open $(HTML)/index.html"

bench: $(VENV)/.tools ## the benchmarks: hours on two cores
	set -e; for run in benchmarks/*/run.py; do $(BIN)/python $$run; done

clean: ## remove the virtual environment, builds and caches
	rm -rf $(VENV) build dist docs/_build .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are touched last, so an installation that was cut short starts again. torch goes in first and alone:
# constraints.txt names the tested release, and nothing after it may choose another.
$(VENV)/.runs: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "expected Python 3.10 to 3.13; got $$($(PYTHON) --version 2>&1); what to do: make PYTHON=python3.13 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable ".[slim,condense,parallel,export,report]"
	@touch $@

$(VENV)/.tools: $(VENV)/.runs
	$(PIP) --editable ".[slim,condense,parallel,export,report,dev,docs]"
	@touch $@
