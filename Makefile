# `make install`: install into .venv. `make demo`: install and run the demo study.
# `make test`: install, lint, and run the fast tests; minutes. `make test-all`: also the slow tests and the site's links.
# `make study`: run the study of docs/results.md and update the numbers in the documents; two hours on two cores.
# `make docs`: regenerate config/README.md and config/schema.json, and build the documentation site into site/.
# `make bench`: measure speed and memory against the alternatives; 13 minutes on two cores.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: install demo study test test-fast test-all test-slurm bench lint format docs clean

install: $(VENV)/.workflow

demo: install
	@$(BIN)/snakemake --cores all --quiet rules
	@$(BIN)/bingo summary results/demo

ABLATIONS := $(patsubst %,results/ablations/tables/%.md,bag-size criterion stored-views terms) \
    results/ablations/figures/bag-size.svg

study: $(VENV)/.workflow
	@$(BIN)/snakemake --cores all --quiet rules --configfile config/fashion-mnist.yaml
	@$(BIN)/snakemake $(ABLATIONS) --cores all --quiet rules --configfile config/ablations.yaml
	@$(BIN)/python workflow/scripts/make_study_page.py

# Lint and tests run side by side.
test: $(VENV)/.dev
	@$(MAKE) --no-print-directory -j2 lint test-fast

test-fast: $(VENV)/.dev
	@$(PYTEST) -m "not slow"

test-all: lint $(VENV)/.docs
	@$(PYTEST)

test-slurm: $(VENV)/.dev
	@$(BIN)/pytest tests/slurm

bench: $(VENV)/.bench
	@$(VENV)/bench/bin/python -m benchmarks

lint: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache > $(VENV)/imports.txt || { cat $(VENV)/imports.txt; exit 1; }
	@$(BIN)/snakefmt --check Snakefile workflow
	@$(BIN)/snakemake --lint

format: $(VENV)/.dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/snakefmt Snakefile workflow

docs: $(VENV)/.docs
	@$(BIN)/python workflow/scripts/make_config_docs.py
	@rm -rf site
	@$(BIN)/zensical build --clean --strict

clean:
	rm -rf $(VENV)

$(VENV)/.workflow: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "bingo: error: $(PYTHON) is older than 3.11; run make PYTHON=python3.12, for example"; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) \
	    || { echo "bingo: error: cannot create $(VENV); on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Installing into $(VENV): about 7 GB, a few minutes"
	@$(BIN)/pip install --quiet --editable '.[workflow,export]'
	@touch $@

$(VENV)/.dev: $(VENV)/.workflow
	@$(BIN)/pip install --quiet --editable '.[workflow,export,dev]'
	@touch $@

$(VENV)/.docs: $(VENV)/.workflow
	@$(BIN)/pip install --quiet --editable '.[workflow,export,docs]'
	@touch $@

# The packages that the benchmarks compare with get a nested environment, which takes all others from .venv.
$(VENV)/.bench: $(VENV)/.workflow
	@test -x $(VENV)/bench/bin/pip || $(BIN)/python -m venv $(VENV)/bench
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	    > "$$($(VENV)/bench/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/around.pth"
	@$(VENV)/bench/bin/pip install --quiet --editable '.[workflow,export,bench]'
	@touch $@
