# Everything sets itself up first: a virtual environment in .venv, made again when pyproject.toml changes.
PYTHON ?= python3
DEMO_SECONDS ?= 20
DEMO_MYSQL ?=
TESTS ?= tests
WORKERS ?= 3
BENCH ?=
SOAK_MINUTES ?= 60

# The command reads both from its environment, so that no password is in a list of processes.
export DEMO_SECONDS
ifneq ($(DEMO_MYSQL),)
export DEMO_MYSQL
else
unexport DEMO_MYSQL
endif

BIN := .venv/bin

.PHONY: help setup demo test lint bench bench-quick test-faults soak clean

help:
	@echo "make demo    a real MySQL, a live load, a live comparison (DEMO_SECONDS=20, DEMO_MYSQL=mysql://…)"
	@echo "make test    all tests, on MySQL and MariaDB (TESTS=tests/unit for a part)"
	@echo "make test-faults  what goes wrong, a line a case (FAULTS=all for the long ones in full)"
	@echo "make soak    load, schema changes, kills, cuts, comparisons (SOAK_MINUTES=60)"
	@echo "make lint    ruff, mypy, import-linter"
	@echo "make bench   the figures of speed and their peers, into docs/benchmarks.md"
	@echo "make bench-quick  the same, small: does the harness work? (BENCH=--own-peers: nothing to install)"
	@echo "make setup   the virtual environment alone"

setup:
	@PYTHON='$(PYTHON)' .ci/setup

demo: setup
	@$(BIN)/duckling demo

test: setup
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(TESTS)

test-faults: setup
	FAULTS='$(FAULTS)' $(BIN)/python -m pytest -v tests/faults

soak: setup
	SOAK_MINUTES='$(SOAK_MINUTES)' $(BIN)/python -m tests.soak

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python -m tests.benchmarks $(BENCH)

bench-quick: setup
	$(BIN)/python -m tests.benchmarks --quick --repeat 1 $(BENCH)

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info
