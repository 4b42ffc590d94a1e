# Works on a fresh Debian 12 as root with nothing but make installed; each target sets up what it needs.
.PHONY: help setup setup-dev demo test test-modes test-large lint bench conformance clean
.DEFAULT_GOAL := help

# An environment that keeps Python from writing bytecode would have every command of orch compile all of it again.
COMPILE = .venv/bin/python -m compileall -q orchestrator

help:
	@echo 'make demo    run a job, checkpoint it, kill it, restore it, and show what happened'
	@echo 'make test    lint and run all tests (root)'
	@echo 'make test-modes   run the tests of jobs in each mode of ORCH_TEST_MODE, and from deltas (many minutes)'
	@echo 'make test-large   run the tests of size with large files (16 GiB of memory and of disk)'
	@echo 'make lint    ruff, mypy --strict, import contracts'
	@echo 'make bench   measure checkpoint and restore'
	@echo 'make conformance ZDTM=PATH   run the tests of a checkout of CRIU (root, many minutes)'
	@echo 'make clean   remove what these made in the checkout'

setup:
	@tools/setup
	@$(COMPILE)

setup-dev:
	@tools/setup --dev
	@$(COMPILE) tests

demo: setup
	@tools/demo

lint: setup-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache

test: lint
	.venv/bin/pytest -q -n auto --maxprocesses 4 --dist worksteal

# The command line's modes: tests/harness/modes.py tells what each adds.
MODES = lazy on-demand
# What all programs are brought back by, too: tests/harness/ways.py.
WAYS = delta,delta_by_comparison,live_large

test-modes: setup-dev
	for mode in $(MODES); do \
	ORCH_TEST_MODE=$$mode .venv/bin/pytest -q -n auto --maxprocesses 4 --dist worksteal tests/kernel tests/apps || exit; \
	done
	ORCH_TESTS_WAYS=$(WAYS) .venv/bin/pytest -q -n auto --maxprocesses 4 --dist worksteal -k 'delta or live_large' \
	    tests/kernel/test_survives_*.py

test-large: setup-dev
	ORCH_TESTS_GHOST_MIB=4096 ORCH_TESTS_SECONDS=600 .venv/bin/pytest -q tests/kernel/test_limits.py

bench: setup-dev
	.venv/bin/python -m benchmarks $(if $(CRIU),--criu $(CRIU))

conformance: setup-dev
	@test -n '$(ZDTM)' || { echo 'name a checkout of CRIU: make conformance ZDTM=PATH' >&2; exit 2; }
	PYTHONPATH=tests .venv/bin/python -m conformance $(ZDTM)

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
