# One command per chore; `make` alone lists them. Needs Python 3.11 or newer and make, nothing else.

# An interpreter of your choice: make PYTHON=/path/to/python3.12 test
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
# Stamps: set-up runs once, and again when pyproject.toml changes.
DEMO_READY := $(VENV)/.ready-demo
DEV_READY := $(VENV)/.ready-dev
CODE := celery_agents examples tests celeryconfig.py
# More for pytest, such as: make test PYTEST_ARGS="-k demo -x -n 0"
PYTEST_ARGS ?=
# A selection, or a page for the table: make bench BENCH_ARGS="--write docs/performance.md"
BENCH_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test chaos bench lint types format wheel clean

help:  ## list what there is
	@grep -hE '^[a-z]+:.*  ## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*  ## (.*)/make \1|\2/' \
	| awk -F'|' '{ printf "  %-14s %s\n", $$1, $$2 }'

demo: $(DEMO_READY)  ## two agent stages on real workers against a local sandbox; no account, no Docker
	@$(BIN)/python -m examples.demo

test: lint types  ## everything that CI runs: lint, types, layers, tests, the built wheel
	$(BIN)/python -m pytest -n 4 --dist loadfile $(PYTEST_ARGS)

chaos: $(DEV_READY)  ## the long tests: workers killed and brokers restarted for minutes, and 50,000 agent tasks
	$(BIN)/python -m pytest -m "" -rP -o faulthandler_timeout=900 tests/chaos $(PYTEST_ARGS)

bench: $(DEV_READY)  ## measure beside the peers, in a quarter of an hour; BENCH_ARGS="--help" tells what else
	@$(BIN)/python -m benchmarks $(BENCH_ARGS)

lint: $(DEV_READY)  ## ruff's rules and format, and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

types: $(DEV_READY)  ## mypy --strict
	$(BIN)/mypy

format: $(DEV_READY)  ## put imports and layout in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(DEV_READY)  ## build the wheel into dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:  ## take away what was built, cached and installed here
	rm -rf $(VENV) .bench .demo build dist .coverage .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(DEMO_READY): pyproject.toml | $(BIN)/python
	@echo "Installing celery-agents and what the demo needs into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[sandbox,vision]"
	@touch $@

# Dependency groups need pip 25.1 or newer; a new virtual environment comes with what Python was released with.
$(DEV_READY): pyproject.toml | $(BIN)/python
	@echo "Installing celery-agents, its extras and its development tools into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[sandbox,vision,web]" --group dev
	@touch $@ $(DEMO_READY)

# The first interpreter that is new enough and can make virtual environments; some are on PATH and cannot run.
$(BIN)/python:
	@for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	    new="$$python"; \
	    "$$python" -c 'import ensurepip, venv' 2>/dev/null || continue; \
	    echo "Making a virtual environment in $(VENV) with $$("$$python" --version)"; \
	    "$$python" -m venv $(VENV) && exit 0; \
	    rm -rf $(VENV); exit 1; \
	done; \
	if [ -n "$$new" ]; then \
	    echo "$$new cannot make virtual environments: install its venv module (Debian, Ubuntu: apt install python3-venv)." >&2; \
	else \
	    echo "celery-agents needs Python 3.11 or newer, which $(if $(PYTHON),$(PYTHON) is not,no python3 on PATH is). Name one: make PYTHON=/path/to/python3" >&2; \
	fi; \
	exit 1
