# Every target sets up what it needs; `make demo` and `make test` run on a bare Debian 12 with Python 3.11.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# Gives this machine a container engine, where there is such a script.
CONTAINER_SETUP ?= ../shared/container/setup

export BENTOML_DO_NOT_TRACK = true
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Modules are compiled when they are first imported: to compile all 24,000 takes as long as to install them.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test pytest-use pytest-rest browser containers lint bench lock clean

help: ## say what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-8s %s\n", $$1, $$2}'

setup: $(VENV)/.installed ## make .venv with everything

$(VENV)/.installed: requirements/dev.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing; install it (on Debian: apt-get install python3.11 python3.11-venv) or say PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --requirement requirements/dev.txt
	PYTHONWARNINGS=ignore $(BIN)/pip install --quiet --no-compile --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## train on the example sentences and serve the result at 127.0.0.1:3000
	$(BIN)/bertrand demo

test: setup browser containers ## run every test
	@echo "the tests run in two halves side by side; each is shown at its end, which takes some fifteen minutes"
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target --keep-going pytest-use pytest-rest

# What uses a model, containers or a browser waits more than it computes; most of the rest trains. Ray is in the rest, and
# pretraining is not, so that both take as long: Ray computes on all cores, which the other half leaves idle.
WITH_A_MODEL := tests/inference tests/service tests/containers tests/deploy tests/training/test_report.py tests/training/test_pretrain.py $(filter-out %/test_ray.py,$(wildcard tests/scoring/test_*.py))

pytest-use:
	$(BIN)/pytest $(WITH_A_MODEL)

pytest-rest:
	$(BIN)/pytest $(WITH_A_MODEL:%=--ignore=%)

browser: ## install chromium for the tests of pages, if it is missing and we are root
	@if command -v chromium >/dev/null || command -v google-chrome >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } >/dev/null \
			|| echo "chromium could not be installed: the tests that need a browser will be skipped" >&2; \
	else echo "chromium is missing: the tests that need a browser will be skipped (on Debian: apt-get install chromium)" >&2; fi

# After browser: apt-get is for one at a time.
containers: | browser ## install wrk and a container engine for the tests of containers, if they are missing and we are root
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! command -v wrk >/dev/null; then \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends wrk; } >/dev/null || true; \
	fi
	@if docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1; then :; \
	elif [ "$$(id -u)" = 0 ] && [ -x $(CONTAINER_SETUP) ]; then \
		$(CONTAINER_SETUP) >/dev/null || echo "no container engine could be set up: the tests of containers will be skipped" >&2; \
	elif podman info >/dev/null 2>&1 && podman-compose version >/dev/null 2>&1; then :; \
	else echo "no container engine: the tests of containers will be skipped (they need Docker with Compose, or podman with podman-compose)" >&2; fi

lint: setup ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

models/demo/model.json: | setup
	$(BIN)/bertrand demo --no-serve

bench: setup models/demo/model.json ## measure what the docs claim; needs wrk, Docker or podman, an hour and a quiet machine
	@missed=; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || missed="$$missed $$script"; done; \
	if test -n "$$missed"; then echo "missed a promise, or could not run:$$missed" >&2; exit 1; fi

lock: setup ## pin every version again (requirements/*.txt)
	requirements/lock $(BIN)

clean: ## remove the environment and caches; models stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache *.egg-info
