# `make example` runs the example, `make test` everything that must pass. Each sets up what it needs, once.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: example test matrices check bench bench-conditions bench-growth clean

example: $(READY)
	$(BIN)/python -m example_app

test: $(READY) check
	$(BIN)/python -m pytest -q -n 3 --dist worksteal

matrices: $(READY)
	$(BIN)/python -m pytest -q -n 3 --dist worksteal -m matrix

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: $(VENV)/.peers
	$(BIN)/python -m benchmarks

bench-conditions: $(READY)
	$(BIN)/python -m benchmarks.conditions --detail

bench-growth: $(VENV)/.peers
	$(BIN)/python -m benchmarks.growth --plots docs/plots

$(VENV)/.peers: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	touch $@

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV)
