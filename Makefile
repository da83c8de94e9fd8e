# Everything runs in .venv, which the first target makes. `make demo` and `make test` need Python and make, nothing else.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help demo run test lint types contracts docs check proofs fuzz quantized kernels clean
help:            ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --editable .
	@touch $@

$(VENV)/installed-dev: pyproject.toml constraints-test.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints-test.txt --editable '.[dev]'
	@touch $@ $(VENV)/installed

demo: $(VENV)/installed  ## render a synthetic street, segment it, print the path of the video
	$(BIN)/rtseg demo

run: $(VENV)/installed  ## make run VIDEO=drive.mp4 [OUT=out.mp4]
	@test -n "$(VIDEO)" || { echo "usage: make run VIDEO=drive.mp4 [OUT=out.mp4]" >&2; exit 2; }
	$(BIN)/rtseg video "$(VIDEO)" -o "$(or $(OUT),$(basename $(notdir $(VIDEO))).rtseg.mp4)"

test: $(VENV)/installed-dev  ## the test suite
	$(BIN)/python -m pytest -n auto --dist loadgroup $(PYTEST_ARGS)

lint: $(VENV)/installed-dev  ## style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-dev  ## type check
	$(BIN)/mypy

contracts: $(VENV)/installed-dev  ## import contracts
	$(BIN)/lint-imports

docs: $(VENV)/installed-dev  ## the documentation, into build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

check: lint types contracts test  ## all of the above

proofs: $(VENV)/installed-dev  ## long tests: long files, soaks, and KILLS=100 killed runs of video and of live
	RTSEG_KEEP_PROOFS=benchmarks/results $(BIN)/python -m pytest -m proof --timeout 1800
	RTSEG_KEEP_PROOFS=benchmarks/results $(BIN)/python tests/kills.py --kills $(or $(KILLS),100)

fuzz: $(VENV)/installed-dev  ## make fuzz [CASES=20000] [SEED=1]: mutated files against a plain FFmpeg decode; resumes where it stopped
	RTSEG_KEEP_PROOFS=benchmarks/results $(BIN)/python tests/fuzz_media.py --cases $(or $(CASES),20000) --seed $(or $(SEED),1) --jobs $(or $(JOBS),2) --keep runs/fuzz

quantized: $(VENV)/installed-dev  ## make quantized DATA=path/to/camvid: build the bundled INT8 model again
	@test -n "$(DATA)" || { echo "usage: make quantized DATA=path/to/camvid" >&2; exit 2; }
	rm -rf runs/int8
	$(BIN)/rtseg build small --target openvino --precision int8 --calibrate "$(DATA)" -o runs/int8
	cp runs/int8/*-int8.xml rtseg/assets/camvid-small-int8.xml
	cp runs/int8/*-int8.bin rtseg/assets/camvid-small-int8.bin

kernels: $(VENV)/installed-dev  ## the GPU's kernels once more, after a change of rtseg/gpu/kernels.cu
	$(PIP) install --quiet nvidia-cuda-nvrtc-cu12==12.0.140
	$(BIN)/python -m rtseg.gpu.compile_kernels

clean:           ## remove what was made here
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
