# Everything runs in .venv, which the first target makes. `make help` lists what there is.
#
# A target's work depends on stamp files, so that a second run starts at once, and on the connectors' sources, so
# that a stale connector is compiled again.

SHELL := /bin/sh
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check --quiet
ZIG := ZIG_GLOBAL_CACHE_DIR=.zig-cache/global ../$(RUN) -m ziglang
PYTHON ?=
PYTEST_ARGS ?=
# Tests wait for servers and processes more than they compute. A file stays with one worker, and with it its servers. Files go by name:
# by their number of tests, the last ones would be those with few and long tests.
PYTEST_WORKERS ?= 3
PYTEST := $(RUN) -m pytest --numprocesses $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder
BENCH_ARGS ?=
FUZZ_ITERATIONS ?= 100000
DB ?= warehouse

INSTALLED := $(VENV)/.installed
BENCH_INSTALLED := $(VENV)/.installed-bench
POSTGRES_16 := $(VENV)/postgresql-16/.installed
CONNECTORS := $(VENV)/.connectors
CONNECTOR_SOURCES := hatch_build.py $(shell find connectors -type f \( -name '*.zig' -o -name '*.json' -o -name '*.zon' -o -name '*.sql' \) \
	-not -path '*/.zig-cache/*' -not -path '*/zig-out/*' 2>/dev/null)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo dev traffic psql shell test check format lint types zig-test pytest test-full roundtrip recovery capture bench connectors build fuzz clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 16

demo: $(CONNECTORS) ## start a PostgreSQL, seed a shop, copy it through Dagster, print what was moved
	@$(RUN) -m demo

dev: $(CONNECTORS) ## the same pipelines in Dagster's UI
	@$(RUN) -m demo dev

traffic: $(CONNECTORS) ## people in the demo's shop: changes for the sensor of `make dev` to find
	@$(RUN) -m demo traffic

psql: $(CONNECTORS) ## a psql on the demo's databases (DB=shop)
	@$(RUN) -m demo psql $(DB)

shell: $(CONNECTORS) ## a shell in which `rapidbyte run pipelines/shop.yaml` finds the demo's databases
	@$(RUN) -m demo shell

test: zig-test pytest ## every test: the connectors' natively, the rest against a real PostgreSQL

check: lint types test ## format, lint, types, tests: what .ci/run runs

bench: $(CONNECTORS) $(BENCH_INSTALLED) ## this engine beside its peers (BENCH_ARGS="--rows 10000000")
	@$(RUN) -m benchmarks $(BENCH_ARGS)

connectors: $(CONNECTORS) ## compile what is stale of the connectors

build: $(CONNECTORS) ## the wheel, in dist/
	@rm -rf dist
	@$(PIP) wheel --no-build-isolation --no-deps --wheel-dir dist .
	@ls -l dist

format: $(INSTALLED) ## rewrite the sources in their format
	@$(RUN) -m ruff format .
	@$(RUN) -m ruff check --fix-only .
	@cd connectors && $(ZIG) fmt .

lint: $(INSTALLED)
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	cd connectors && $(ZIG) fmt --check .

types: $(INSTALLED)
	$(RUN) -m mypy

zig-test: $(INSTALLED)
	$(RUN) hatch_build.py --zig build test --summary all

pytest: $(CONNECTORS)
	$(PYTEST) $(PYTEST_ARGS)

test-full: zig-test $(CONNECTORS) $(POSTGRES_16) ## the same with whole matrices: every type, every failpoint, every mode
	$(PYTEST) --full $(PYTEST_ARGS)

roundtrip: $(CONNECTORS) $(POSTGRES_16) ## every type in every mode; `make test` has a selection of them
	$(PYTEST) --full tests/roundtrip $(PYTEST_ARGS)

capture: $(CONNECTORS) ## change data capture, every situation and failpoint; `make test` has a selection of them
	$(PYTEST) --full tests/cdc $(PYTEST_ARGS)

recovery: $(CONNECTORS) ## every failpoint of every sync and write mode; `make test` has a selection of them
	$(PYTEST) --full tests/recovery $(PYTEST_ARGS)

fuzz: $(INSTALLED) ## the decoders under random input (FUZZ_ITERATIONS=1000000 of each)
	$(RUN) hatch_build.py --zig build fuzz --summary all -Dfuzz-iterations=$(FUZZ_ITERATIONS)

clean: ## everything that was made here, the demo's databases included
	@for lock in .demo/postgres/data/postmaster.pid; do \
	    if [ -e $$lock ] && kill -0 "$$(head -n 1 $$lock)" 2>/dev/null; then \
	        echo "the demo's PostgreSQL is running: stop 'make dev' first" >&2; exit 1; \
	    fi; \
	done
	rm -rf $(VENV) .demo dist connectors/zig-out connectors/.zig-cache
	rm -f rapidbyte_dagster/connectors/*.wasm rapidbyte_dagster/connectors/*.json rapidbyte_dagster/connectors/BUILD
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis

# The first Python that is new enough, or the one that was asked for: make demo PYTHON=python3.12
$(RUN):
	@for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.10 python); do \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || continue; \
	    if ! "$$python" -c 'import venv, ensurepip' 2>/dev/null; then \
	        echo "$$python has no venv module: install it (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; \
	    fi; \
	    echo "making $(VENV) with $$("$$python" --version)"; \
	    "$$python" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }; \
	    exit 0; \
	done; \
	echo "no Python 3.10 or newer found: install one, or name it: make $(or $(MAKECMDGOALS),demo) PYTHON=/path/to/python3" >&2; \
	exit 1

# Without build isolation: the compiler is installed once, in .venv, and not again for every build.
$(INSTALLED): pyproject.toml | $(RUN)
	@echo "installing the packages (a few minutes the first time)"
	@$(PIP) install --upgrade 'pip>=23.1'
	@$(PIP) install 'hatchling>=1.26' 'editables>=0.5' 'ziglang==0.17.1'
	@$(PIP) install --no-build-isolation --editable '.[demo,dev]'
	@touch $@

# For the tests between versions. Beside the environment and not in it: two such packages share the name of a file. Only
# its programs are used, so that the wheel of any Python will do.
$(POSTGRES_16): | $(INSTALLED)
	@$(PIP) install --target $(@D) --upgrade --no-deps --only-binary :all: --implementation cp --python-version 3.12 \
	    --abi cp312 'pgserver==0.1.4' || echo "no PostgreSQL 16 from pip for this machine: its tests will be skipped" >&2
	@mkdir -p $(@D)
	@touch $@

$(BENCH_INSTALLED): $(INSTALLED)
	@echo "installing the benchmark's peers"
	@$(PIP) install --no-build-isolation --editable '.[demo,dev,bench]'
	@touch $@

$(CONNECTORS): $(INSTALLED) $(CONNECTOR_SOURCES)
	@$(RUN) hatch_build.py
	@touch $@
