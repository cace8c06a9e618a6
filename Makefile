# Everything runs inside .venv, which `install` makes with nothing but Python >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DISTRIBUTIONS := -e core -e plugins/adapters -e plugins/generic_turn -e plugins/lab \
	-e plugins/exec -e plugins/http -e plugins/pool -e plugins/vk
STAMP := $(VENV)/.installed
PROJECTS := $(wildcard pyproject.toml core/pyproject.toml plugins/*/pyproject.toml tests/pyproject.toml)
SOURCES := core/src plugins/*/src tests/src

.PHONY: install demo test check bench clean

install: $(STAMP)

$(STAMP): $(PROJECTS) constraints.txt VERSION
	@$(PYTHON) -c 'import sys; sys.exit("Turnlane needs Python 3.11 or newer; run make PYTHON=/path/to/python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check $(DISTRIBUTIONS) -e tests
	@touch $@

demo: install
	$(BIN)/turnlane demo

test: install
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine -q

# What the last `make test` covered is good enough to judge; without one the tests run first.
.coverage:
	$(MAKE) test

check: install .coverage
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(SOURCES)
	MYPYPATH=bench $(BIN)/mypy bench/*.py
	$(BIN)/lint-imports
	$(BIN)/coverage report --fail-under=95

bench: install
	$(BIN)/python bench/run.py $(ARGS)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* htmlcov dist build bench/results
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
