# The two commands of the README, and what CI runs. Everything happens in a virtual environment of the project's own.

PYTHON ?= python3
VENV ?= .venv
# Any torch that satisfies pyproject.toml will do; this one is what the documented results were measured with.
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test golden gpu-check lint docs install install-dev clean

help:
	@echo "make demo   install, get Fashion-MNIST, run the demo study and write its report (about 25 minutes, 2 cores)"
	@echo "make test   install and run all tests (about 50 minutes, 2 cores)"
	@echo "make golden   a small study of Fashion-MNIST, compared with what it once measured (3 minutes, one core)"
	@echo "make gpu-check   the tests that need a GPU (skipped, by name, without one)"
	@echo "make docs   the site of the documentation, into site/"
	@echo "make lint   ruff, mypy and the layer contracts"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "tokenlaw needs Python >= 3.11; $(PYTHON) is older. Set PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV) || { echo "python3-venv is missing (Debian: apt install python3-venv)"; exit 2; }

# torch first and by itself: its version decides which build is fetched, the rest follows.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[train]"
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[train,dev]"
	@touch $@

install: $(VENV)/.installed

install-dev: $(VENV)/.installed-dev

demo: $(VENV)/.installed
	$(BIN)/tokenlaw demo

# One process more than cores, each of one thread: tests train tiny models, on which threads only wait for each other,
# and those of SLURM clusters of their own (skipped by name without SLURM) mostly wait. Files with slow tests begin first
# (tests/conftest.py), which xdist would otherwise put last, since they hold few. Tests of real processes can be
# starved by what else runs on a machine: those that fail are run once more, alone, and named at the end; any other test
# that passes only then fails the gate. The order is random, its seed is in the header; the generators of `random` and
# numpy are not seeded for tests. ORDER="-p no:randomly" takes the order of the files, ORDER=--randomly-seed=N repeats one.
ORDER ?= --randomly-dont-reset-seed
WORKERS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 1)')
PYTEST := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow or not slow" $(ORDER)
test: $(VENV)/.installed-dev
	@$(PYTEST) -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 40 --gate first; first=$$?; [ $$first -le 1 ] || exit $$first; \
	[ $$first = 0 ] || $(PYTEST) --gate second --last-failed --last-failed-no-failures none

golden: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.scaling.test_golden_generator

# On a GPU also the paper's 111M at 256 tokens beside transformers, which is installed for that alone.
GPU_BENCH := PYTHONPATH=.:$(VENV)/peers $(BIN)/python tests/benchmarks
gpu-check: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m gpu -v -rsP --durations 0 tests
	@$(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' \
		|| { echo "no GPU that torch can use: 111M is not timed beside transformers"; exit 0; } \
		&& $(BIN)/python -m pip install --quiet --disable-pip-version-check --target $(VENV)/peers --upgrade transformers \
		&& $(GPU_BENCH)/bench_generator.py 111M --device cuda --compile --precisions bfloat16 --threads 1 \
		&& $(GPU_BENCH)/bench_sampling.py 111M --device cuda --precisions bfloat16 --threads 1

docs: $(VENV)/.installed
	@test -x $(BIN)/mkdocs || $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[docs]"
	$(BIN)/mkdocs build --strict

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build *.egg-info
