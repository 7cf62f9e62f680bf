# Every target runs on a clean checkout with python3.11, Node 20 with npm, Go, git and make.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Downloads that outlive the checkout: uv, wheels, npm packages.
export KINO_CACHE ?= $(HOME)/.cache/kino
export UV_CACHE_DIR ?= $(KINO_CACHE)/uv
export npm_config_cache ?= $(KINO_CACHE)/npm
# Modules compiled once start every process a second sooner.
unexport PYTHONDONTWRITEBYTECODE

PY := .venv/bin/python
UV := $(KINO_CACHE)/tools/uv-0.13.9/bin/uv
STAMPS := .stamps
# They share nothing, so two processes halve the wait; the others use both cores by themselves.
FAST_TESTS := tests/unit tests/contract -m quick --numprocesses 2 --dist loadfile
WEB_SOURCES := $(shell find web gen/web -type f -not -path '*/node_modules/*' -not -path '*/dist/*' 2>/dev/null)

.PHONY: help setup lock node gen check-gen lint lint-proto release-protos lint-python lint-web test test-fast run demo bench web clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

# --- environment ---------------------------------------------------------------------------------------------------

setup: $(STAMPS)/python ## Make the Python environment from the hashed lock

# Its version is in its path: a fresh checkout takes the one that is there.
$(UV):
	@command -v python3.11 >/dev/null || { echo "python3.11 is missing: install Python 3.11." >&2; exit 1; }
	@rm -rf $(KINO_CACHE)/tools/uv-0.13.9 && python3.11 -m venv $(KINO_CACHE)/tools/uv-0.13.9
	@$(KINO_CACHE)/tools/uv-0.13.9/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.uv.lock
	@touch $@

$(STAMPS)/python: requirements.lock gen/python/pyproject.toml pyproject.toml | $(UV)
	@mkdir -p $(STAMPS)
	@[ -x $(PY) ] || $(UV) venv --quiet --python python3.11 .venv
	@$(UV) pip sync --quiet --compile-bytecode --python $(PY) --require-hashes requirements.lock
	@$(UV) pip install --quiet --python $(PY) --no-deps --no-build-isolation --editable gen/python --editable .
	@touch $@

lock: | $(UV) ## Resolve pyproject.toml again into the lock files
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-package kino-stubs --group dev pyproject.toml -o requirements.lock
	@echo 'uv==0.13.9' | $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-annotate - -o requirements.uv.lock
	@! grep -nE '(https?://|git\+)' requirements.lock requirements.uv.lock

node: $(STAMPS)/node

$(STAMPS)/node: package.json package-lock.json $(wildcard web/package.json gen/web/package.json tests/acceptance/*/package.json)
	@command -v npm >/dev/null || { echo "npm is missing: install Node 20 with npm." >&2; exit 1; }
	@mkdir -p $(STAMPS) && npm ci --no-fund --no-audit --loglevel=error
	@touch $@

$(STAMPS)/footage: tests/footage/package-lock.json
	@mkdir -p $(STAMPS) && npm ci --prefix tests/footage --no-fund --no-audit --loglevel=error
	@touch $@

# --- contracts -----------------------------------------------------------------------------------------------------

$(STAMPS)/third_party: tools/third_party.sh requirements.lock | $(STAMPS)/python
	@tools/third_party.sh && touch $@

gen: setup node $(STAMPS)/third_party ## Generate gen/ from proto/
	@$(PY) tools/gen.py

check-gen: setup node $(STAMPS)/third_party ## Fail when gen/ does not match proto/
	@$(PY) tools/gen.py --check

lint-proto: setup $(STAMPS)/third_party ## Lint the contracts, and compare them with the released ones
	@.venv/bin/buf lint
	@.venv/bin/buf breaking proto --against proto/released.binpb --exclude-imports

release-protos: setup $(STAMPS)/third_party ## Freeze today's contracts as the ones later changes must not break
	@.venv/bin/buf build proto --as-file-descriptor-set --exclude-source-info -o proto/released.binpb

# --- checks --------------------------------------------------------------------------------------------------------

lint: lint-python lint-proto check-gen lint-web ## Run every linter and type checker

lint-python: setup
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

lint-web: node
	@npm run --workspaces --if-present typecheck

test: setup web $(STAMPS)/footage ## Run every test; installs Debian's Chromium and mpv when they are missing
	@tools/programs.sh
	@npm run --workspaces --if-present test
	@$(PY) -m pytest $(FAST_TESTS)
	@$(PY) -m pytest -m 'not quick'

test-fast: setup ## Run the tests that need no browser and no real engine, in a minute
	@$(PY) -m pytest $(FAST_TESTS)

# --- use -----------------------------------------------------------------------------------------------------------

run: setup web ## Start the whole suite on one port
	@.venv/bin/kino up

demo: setup web ## Take a made film through every part of the suite; PROFILE=cluster: on real engines, losing nodes
	@$(if $(filter cluster,$(PROFILE)),$(PY) -m tests.engines.cluster_demo,.venv/bin/kino demo)

bench: setup web ## Run one benchmark: make bench NAME=startup
	@[ -n "$(NAME)" ] || { echo "which one? make bench NAME=startup" >&2; exit 1; }
	@.venv/bin/kino bench $(NAME)

web: $(STAMPS)/page ## Build the page into services/page/dist

$(STAMPS)/page: $(STAMPS)/node $(WEB_SOURCES)
	@npm run --workspace web build
	@touch $@

clean: ## Remove everything that can be made again; a run's data stays
	@rm -rf .venv .stamps node_modules tests/footage/node_modules third_party services/page/dist \
	  .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
