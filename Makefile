# Every target is one line that calls the command line or the test runner; .venv makes itself.
MODEL ?= kws
BOARD ?= qemu_m4
RUNS ?= 3
JOBS ?= 2
ARGS ?=
EC = .venv/bin/edgecompress
PY = .venv/bin/python

.PHONY: help compress build flash measure doctor tools report footprint pull train test lint bench clean

help: ## this list
	@awk -F':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

compress: .venv/.ready ## prune, quantise, convert and prove MODEL (a zoo name or a file)
	@$(EC) compress $(MODEL) $(ARGS)

build: .venv/.ready tools ## firmware of MODEL for BOARD, and what it takes of flash and RAM
	@$(EC) build $(MODEL) --board $(BOARD) $(ARGS)

flash: .venv/.ready tools ## put MODEL on BOARD, run it and read the measurement back
	@$(EC) flash $(MODEL) --board $(BOARD) $(ARGS)

measure: .venv/.ready tools ## what an inference of MODEL takes on BOARD, operator by operator
	@$(EC) measure $(MODEL) --board $(BOARD) --runs $(RUNS) $(ARGS)

doctor: .venv/.ready ## what this machine lacks for the boards, and how to get it
	@$(EC) doctor $(ARGS)

report: .venv/.ready tools ## measure MODEL on BOARD, write report.html, check the budget
	@$(EC) report $(MODEL) --board $(BOARD) $(ARGS)

footprint: .venv/.ready tools ## measure MODEL on BOARD as the base that changes are compared with
	@$(PY) ci/footprint.py $(MODEL) --boards $(BOARD) --keep footprint $(ARGS)

pull: .venv/.ready ## fetch a zoo model's public files by pinned SHA-256
	@$(EC) pull $(MODEL) $(ARGS)

train: .venv/.ready ## train a zoo model afresh
	@$(EC) train $(MODEL) $(ARGS)

test: .venv/.ready ## the tests; what is missing on this machine is skipped with a reason
	@scripts/tools.sh test
	@$(PY) -m pytest --numprocesses $(JOBS) --dist worksteal $(ARGS)

lint: .venv/.ready ## ruff and mypy
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy

bench: .venv/.ready ## the tables of docs/benchmarks.md
	@$(PY) -m benchmarks $(ARGS)

clean: ## remove build products (the environment stays)
	@rm -rf build firmware/generated firmware/.pio/build .pytest_cache .mypy_cache .ruff_cache .hypothesis

tools: ## the compilers and the emulator, where they may be installed
	@scripts/tools.sh

.venv/.ready: requirements.lock pyproject.toml scripts/env.sh
	@scripts/env.sh
