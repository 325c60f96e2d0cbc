# Needs Python 3.11 or newer, make and git; everything else goes into .venv. PYTHON=python3.12 picks another interpreter.
DEV_EXTRAS := dev,faces,eval

.PHONY: help demo test check setup clean
.DEFAULT_GOAL := help

help:  ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: .venv/.ready  ## Set up, then split and swap two clips into demo/ (.venv/bin/divid demo --train trains a model first: 12 minutes)
	@.venv/bin/divid demo --out demo

test: .venv/.ready-$(DEV_EXTRAS)  ## Set up, then run the tests
	@scripts/test

check: .venv/.ready-$(DEV_EXTRAS)  ## Set up, then check style, types, docstrings and imports
	@scripts/check

setup: .venv/.ready-$(DEV_EXTRAS)  ## Set up for development, nothing else

clean:  ## Remove .venv, caches and what demo made
	rm -rf .venv demo .pytest_cache .ruff_cache .mypy_cache .import_linter_cache dist build
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.ready: pyproject.toml constraints.txt
	@PYTHON="$(PYTHON)" scripts/setup

.venv/.ready-$(DEV_EXTRAS): pyproject.toml constraints.txt
	@PYTHON="$(PYTHON)" scripts/setup $(DEV_EXTRAS)
