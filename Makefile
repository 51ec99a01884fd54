# `make example` runs the example, `make test` everything that must pass. Each sets up what it needs, once.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# The tests start many Python processes. Without compiled files, each would compile the packages anew, for seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: example test matrices check ruff mypy pyright imports bench bench-conditions bench-growth clean

example: $(READY)
	$(BIN)/python -m example_app

test: $(READY) check
	$(BIN)/python -m pytest -q -n 3 --dist worksteal

matrices: $(READY)
	$(BIN)/python -m pytest -q -n 3 --dist worksteal -m matrix

# The two type checkers use one core each, so they run beside each other.
check: $(READY)
	$(MAKE) --jobs=2 --output-sync=target --no-print-directory pyright mypy ruff imports

ruff:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

mypy:
	$(BIN)/mypy

pyright:
	$(BIN)/pyright

imports:
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
