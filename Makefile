# Two commands are enough: `make run` and `make test`. Both set up what they need first.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

help:  ## What there is
	@grep -hE '^[a-z-]+:.*\#\#' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP)  ## Virtual environment with the locked dependencies

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v >= (3, 11) else "QD-SET-001: Python 3.11 or newer is needed, this is %d.%d; try make PYTHON=python3.12 …" % v)'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "QD-SET-001: this Python has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "setting up $(VENV) (once; about a minute)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: $(STAMP)  ## The main job on the shipped file; INPUT=path/to.csv BUDGET_USD=0.02 TRANSCRIPT=detour MODEL=… YES=1
	@$(BIN)/quarterdeck run $(if $(INPUT),--input "$(INPUT)") $(if $(BUDGET_USD),--budget "$(BUDGET_USD)") \
	  $(if $(TRANSCRIPT),--transcript "$(TRANSCRIPT)") $(if $(MODEL),--model "$(MODEL)") $(if $(YES),--yes)

up: $(STAMP)  ## Start everything and stay up until Ctrl-C
	@$(BIN)/quarterdeck up

test: $(STAMP)  ## All tests but the slow ones; ARGS="…" goes to pytest
	$(BIN)/python -m pytest -n 3 -m "not slow" $(ARGS)

test-slow: $(STAMP)  ## kill -9 in mid-mission, services as processes of their own: minutes
	$(BIN)/python -m pytest -m slow $(ARGS)

contract: $(STAMP)  ## Write proto/ anew from libs/quarterdeck/contracts
	$(BIN)/python -m quarterdeck.testkit.contract_files --write

check: $(STAMP)  ## ruff, mypy --strict, direction and house rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_tidy.py tests/test_layers.py

lock:  ## Renew requirements.lock from pyproject.toml (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
	  --no-header --extra agents --extra dev --output-file requirements.lock pyproject.toml

clean:  ## Remove the environment and all that runs have written
	rm -rf $(VENV) .quarterdeck

.PHONY: help setup run up test test-slow contract check lock clean
