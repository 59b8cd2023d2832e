# Two commands for a newcomer: `make paper` shows the main job, `make test` proves it.
# Both set everything up first. `make help` lists the rest.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
TAPE   ?=
MINUTES ?= 10
WORKERS ?= 2
SEED   ?=
KILLS  ?= 100
S3     ?=
# What a trader imports is compiled here and now: Python leaves a module cut off that it compiles on a full disk.
# What only tests import is compiled when it is first imported: most never is.
PIP    := -m pip install --quiet --disable-pip-version-check
LAZY   := --no-compile
unexport PYTHONDONTWRITEBYTECODE
CEPH   := ceph-mon ceph-mgr ceph-osd radosgw ceph-common

.DEFAULT_GOAL := help
.PHONY: help setup setup-lake setup-dev setup-bench paper paper-options test test-fast ceph check check-style check-mypy check-pyright fmt contract bench torture engines lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(VENV)/setup.stamp: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "holdfast needs Python 3.11 or newer, $(PYTHON) is " + sys.version.split()[0] + "; try: make setup PYTHON=python3.12")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "python venv is missing; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) --require-hashes -r requirements.lock
	$(BIN)/python $(PIP) --no-deps --no-build-isolation -e .
	$(BIN)/python -m compileall -q src
	@touch $@

$(VENV)/dev.stamp: requirements-dev.lock $(VENV)/setup.stamp
	$(BIN)/python $(PIP) $(LAZY) --require-hashes -r requirements-dev.lock
	@touch $@

$(VENV)/bench.stamp: requirements-bench.lock $(VENV)/dev.stamp
	$(BIN)/python $(PIP) $(LAZY) --require-hashes -r requirements-bench.lock
	@touch $@

$(VENV)/lake.stamp: requirements-lake.lock $(VENV)/setup.stamp
	$(BIN)/python $(PIP) --require-hashes -r requirements-lake.lock
	@touch $@

setup: $(VENV)/setup.stamp  ## build .venv from requirements.lock alone
setup-lake: $(VENV)/lake.stamp  ## and the lake, its SQL and plots
setup-dev: $(VENV)/dev.stamp
setup-bench: $(VENV)/bench.stamp

paper: setup  ## trade the seeded market for a minute; TAPE=kalshi/l2-nba-unlicensed trades a recording
	$(BIN)/holdfast paper $(if $(TAPE),--tape $(TAPE))

paper-options: setup-lake  ## trade options for a day on a seeded chain; TAPE=options trades the recordings
	$(BIN)/holdfast paper --desk options $(if $(TAPE),--tape $(TAPE))

PARALLEL = -n $(WORKERS) --dist worksteal
test: setup-dev  ## run every test, in WORKERS=2 processes
	$(BIN)/python -m pytest $(PARALLEL)

test-fast: setup-dev  ## run the tests that take under two seconds each
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

ceph: setup-dev  ## archive to a real S3 server: a Ceph of one machine, from Debian's packages
	@if ! command -v radosgw >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(CEPH) >/dev/null; fi
	$(BIN)/python -m pytest tests/ceph

ENGINES := .venv-engines
$(ENGINES)/engines.stamp: requirements-engines.lock
	$(PYTHON) -m venv $(ENGINES)
	$(ENGINES)/bin/python $(PIP) $(LAZY) --require-hashes -r requirements-engines.lock
	@touch $@

engines: setup-dev $(ENGINES)/engines.stamp  ## read the lake with Daft and PySpark (needs Java 17; a venv of its own)
	$(BIN)/python -m pytest tests/engines

check: check-style check-mypy check-pyright  ## format, lint, strict types, import layers; `make -j2 check` is quicker

check-style: setup-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

check-mypy: setup-dev
	$(BIN)/mypy

check-pyright: setup-dev
	@if [ -x tests/node/node_modules/.bin/pyright ]; then tests/node/node_modules/.bin/pyright; else echo "pyright: SKIPPED, run npm ci in tests/node"; fi

fmt: setup-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

contract: setup-dev
	$(BIN)/python tests/docs/contract_table.py

bench: setup-bench  ## measure, as ratios beside the peers; writes build/bench.json
	$(BIN)/python benches/run.py

torture: setup-dev  ## crash the log for MINUTES=10 on a simulated disk, on ext4 and at its system calls; SEED repeats a run
	$(BIN)/python tests/torture.py --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) --json build/torture.json

torture-lake: setup-dev  ## kill rival projectors KILLS=100 times and compare every row with its record; S3=1 on moto
	$(BIN)/python tests/crash/lake_torture.py --kills $(KILLS) $(if $(S3),--s3 --rate 300) $(if $(SEED),--seed $(SEED))

UV_COMPILE = uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
lock:  ## resolve the lock files anew (needs uv)
	$(UV_COMPILE) --group build -o requirements.lock
	$(UV_COMPILE) --all-extras --group dev -c requirements.lock -o requirements-dev.lock
	$(UV_COMPILE) --extra lake --extra options --extra sql --extra plot --extra stops -c requirements-dev.lock -o requirements-lake.lock
	$(UV_COMPILE) --extra lake --group engines -o requirements-engines.lock
	$(UV_COMPILE) --group bench -c requirements.lock -c requirements-dev.lock -o requirements-bench.lock

clean:
	rm -rf $(VENV) $(ENGINES) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
