# `make demo`: install and run the demo study. `make test`: install and check everything.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slurm lint format docs clean

demo: $(VENV)/.workflow
	@$(BIN)/snakemake --cores all --quiet rules
	@$(BIN)/bingo summary results/demo

test: lint
	@$(BIN)/pytest -n 2 --dist loadfile

test-slurm: $(VENV)/.dev
	@$(BIN)/pytest tests/slurm

lint: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/snakefmt --check Snakefile workflow
	@$(BIN)/snakemake --lint

format: $(VENV)/.dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/snakefmt Snakefile workflow

docs: $(VENV)/.workflow
	@$(BIN)/python workflow/scripts/make_config_docs.py

clean:
	rm -rf $(VENV)

$(VENV)/.workflow: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "bingo: error: $(PYTHON) is older than 3.11; run make PYTHON=python3.12, say"; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) \
	    || { echo "bingo: error: cannot make $(VENV); on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Installing into $(VENV): some 7 GB, a few minutes"
	@$(BIN)/pip install --quiet --editable '.[workflow]'
	@touch $@

$(VENV)/.dev: $(VENV)/.workflow
	@$(BIN)/pip install --quiet --editable '.[workflow,dev]'
	@touch $@
