# Every target sets up its own environment in .venv; nothing else on the machine is touched.
PYTHON ?= python3
VENV ?= .venv
# Which build of PyTorch to install. The CPU build is enough for everything here; point pip's index at PyTorch's CPU
# wheels if your platform's default is a CUDA build.
TORCH ?= torch==2.13.0

BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint bench bench-scoring train clean

demo: $(READY)
	$(BIN)/pa-middleware demo

test: $(READY)
	$(BIN)/python -m pytest --cov --cov-report=term

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m benchmarks.guard_overhead

train: $(READY)
	$(BIN)/python -m pa_demos.taxi.train --seed 1 --out build/pair

clean:
	rm -rf $(VENV) build dist

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $@
