# Yuanka 园卡. `make` alone lists what there is.
# Everything is installed into .venv, from the hashed lock files, by pip as this machine has it set
# up (mirrors included); once installed, nothing here needs a network.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo tour prove test check fmt bench migration lock docs clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

.venv/runtime: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
		|| { echo "Python 3.11 is needed; name it with PYTHON=/path/to/python3.11"; exit 1; }
	@echo "installing into .venv (about a minute, only once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -c 'import pathlib, site; pathlib.Path(site.getsitepackages()[0], "yuanka.pth").write_text(str(pathlib.Path.cwd()) + "\n")'
	@printf '#!/bin/sh\nexec "%s" -m api.cli "$$@"\n' "$(CURDIR)/$(BIN)/python" > $(BIN)/yuanka && chmod +x $(BIN)/yuanka
	@touch $@

.venv/development: requirements-dev.lock .venv/runtime
	@echo "installing what the checks and tests need (under a minute, only once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

setup: .venv/development ## install everything, development tools included

demo: .venv/runtime ## start a whole city, run the main job, stay up until Ctrl-C
	@$(BIN)/python -m api.cli demo $(ARGS)

tour: .venv/runtime ## run the main job again against a running demo
	@$(BIN)/python -m api.cli tour $(ARGS)

prove: .venv/runtime ## let the books of the demo prove themselves
	@$(BIN)/python -m api.cli prove

test: check ## run every check and every test
	@$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

check: .venv/development ## format, lint, types, import contracts
	@$(BIN)/ruff format --check --quiet . || { echo "run 'make fmt'"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

fmt: .venv/development ## format and sort imports
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .

bench: .venv/development ## load the API and print rate, latency, CPU and SQL per call
	@$(BIN)/python -m bench.load $(ARGS)

docs: .venv/development ## write docs/errors.md and docs/glossary.md from the code
	@$(BIN)/python -m docs.generate

migration: .venv/development ## draft a migration from the models: make migration NAME=what_changes
	@$(BIN)/python -m api.cli draft-migration $(NAME)

lock: .venv/development ## pin every dependency again, with hashes
	@for lock in "requirements.lock" "requirements-dev.lock --extra dev"; do \
		$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
			--no-emit-index-url --no-header pyproject.toml --output-file $$lock; done

clean: ## remove what was installed and what the demo wrote
	rm -rf .venv var build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
