# Two commands on a fresh machine: `make demo` and `make test`. Each makes what it needs first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.made
BENCH_VENV := .venv-bench
BENCH_STAMP := $(BENCH_VENV)/.made

.PHONY: help demo test torture exhaust fuzz bench lint servers constraints clean
.DEFAULT_GOAL := help

help:
	@echo "make demo          run the whole loop on loopback, and try to break it"
	@echo "make test          the tests, quick by default"
	@echo "make torture       kills, stops, power cuts, restores and every fault of a relay, with a table of what came of it;"
	@echo "                   DATABASE=postgresql: the same on a server"
	@echo "make exhaust       whatever else make test leaves out: all of a kind, of which it takes a seed"
	@echo "make fuzz          feed the reader of replies with what nobody would write, for FUZZ_SECONDS (60)"
	@echo "make bench         every benchmark beside its peers, hours on a quiet machine; BENCH=--quick: whether they run"
	@echo "make lint          ruff, mypy, import-linter"
	@echo "make servers       the servers that some tests need (as root: installed; else: the command)"
	@echo "make constraints   pin the newest versions that pyproject.toml allows"

demo: $(STAMP)
	@$(BIN)/outbox demo

test: $(STAMP) servers
	@$(BIN)/pytest -n 3 --dist worksteal  # tests wait for servers and processes, so two cores keep three busy

# What is about a file is left out with DATABASE=postgresql, and the rest of it is done on a server.
DATABASE ?= sqlite
torture: $(STAMP) servers
	@rm -f .torture; TORTURE_TABLE=$(CURDIR)/.torture $(BIN)/pytest -n 2 --dist worksteal -m torture \
	  --database=$(DATABASE) tests/crash tests/faults; code=$$?; \
	  $(BIN)/python -m tests.crash.faults_table .torture; exit $$code

exhaust: $(STAMP) servers
	@$(BIN)/pytest -n 3 --dist worksteal -m torture --ignore tests/crash --ignore tests/faults

# Not pinned with the rest: nothing else needs it, and it has wheels for Python 3.11 to 3.13 on Linux alone.
FUZZ_SECONDS ?= 60
fuzz: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'atheris>=3,<4'
	@$(BIN)/python -m tests.inbox.fuzzing $(FUZZ_SECONDS)

# The peers have a venv of their own. BENCH takes names and options: make bench BENCH="drain kills --repeat 5".
bench: $(BENCH_STAMP) servers
	@$(BENCH_VENV)/bin/python -m benchmarks $(BENCH)

lint: $(STAMP)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

servers:
	@.ci/servers

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "outbox: Python 3.11 or later is needed; say which with PYTHON=python3.12 (apt-get install python3)" >&2; exit 78; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
	  { echo "outbox: this Python has no ensurepip; apt-get install python3-venv" >&2; exit 78; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(BENCH_STAMP): $(STAMP) benchmarks/peers.txt
	@test -x $(BENCH_VENV)/bin/python || $(PYTHON) -m venv $(BENCH_VENV)
	@$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  --requirement benchmarks/peers.txt --editable '.[postgres]'
	@touch $@

# uv writes them for every platform and Python; no address of an index gets in.
constraints: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip compile pyproject.toml --universal --all-extras --upgrade --quiet --python-version 3.11 \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file constraints.txt

clean:
	@rm -rf $(VENV) $(BENCH_VENV) .bench-quick dist build
