# `make example` runs the example (PORT=8080 chooses the port), `make test` everything that must pass, `make docs` the
# documentation. Each sets up what it needs, once.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
EXAMPLE := $(VENV)/.example
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable

# The tests start many Python processes. Without compiled files, each would compile the packages anew, for seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: example test docs docs-build screenshot matrices coverage check ruff mypy pyright imports
.PHONY: bench bench-conditions bench-growth outbox-kills transfer-kills mutation clean

example: $(EXAMPLE)
	@$(BIN)/python -m example_app $(if $(PORT),--port $(PORT))

test: $(READY) check
	$(BIN)/python -m pytest -q -n 3 --dist worksteal

# The documentation site, at http://127.0.0.1:8001/ (DOCS_PORT=8080 chooses the port). It loads nothing from the internet.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve --dev-addr 127.0.0.1:$(or $(DOCS_PORT),8001)

docs-build: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "The site is in build/site."

# The picture of the example in the README. It needs Debian's packages chromium and chromium-driver.
screenshot: $(READY)
	$(BIN)/python -m tests.example.screenshot docs/images/example.webp

matrices: $(READY)
	$(BIN)/python -m pytest -q -n 3 --dist worksteal -m matrix

# The two type checkers use one core each, so they run beside each other.
COVERAGE := $(BIN)/python -m coverage

# It takes more than twice as long as `make test`. The report is printed even if a test fails; then the command fails, too.
coverage: $(READY)
	$(COVERAGE) erase
	$(COVERAGE) run -m pytest -q -n 3 --dist worksteal; \
		passed=$$?; $(COVERAGE) combine -q; $(COVERAGE) report && exit $$passed

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

transfer-kills: $(READY)
	$(BIN)/python -m tests.transfers.kills 1000000 3

outbox-kills: $(READY)
	$(BIN)/python -m tests.outbox.kills 10000 20

# AREA="cursors keyset" chooses the areas of tests/mutation/areas.py, JOBS=1 how many mutants are tested at a time.
mutation: $(READY)
	$(BIN)/nox -s mutation -- $(if $(JOBS),--jobs $(JOBS)) $(AREA)

bench: $(VENV)/.peers
	$(BIN)/python -m benchmarks

bench-conditions: $(READY)
	$(BIN)/python -m benchmarks.conditions --detail

bench-growth: $(VENV)/.peers
	$(BIN)/python -m benchmarks.growth --plots docs/plots

$(VENV)/.peers: $(READY)
	$(INSTALL) '.[bench]'
	touch $@

$(READY): pyproject.toml
	@echo "Installing the toolkit and its development tools into $(VENV): some 600 MB, a minute or two ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(INSTALL) '.[dev]'
	@touch $@ $(EXAMPLE)

# What `make test` installs contains what the example needs.
$(EXAMPLE): pyproject.toml
	@echo "Installing the toolkit and what the example needs into $(VENV): some 160 MB, half a minute ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(INSTALL) '.[example]'
	@touch $@

clean:
	rm -rf $(VENV)
