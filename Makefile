# Everything runs in .venv, which the first target makes. `make demo` and `make test` need Python and make, nothing else.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help demo run test lint types contracts check proofs fuzz quantized kernels clean
help:            ## what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --editable .
	@touch $@

$(VENV)/installed-dev: pyproject.toml constraints-test.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints-test.txt --editable '.[dev]'
	@touch $@ $(VENV)/installed

demo: $(VENV)/installed  ## draw a street, segment it, and say where the video lies
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

contracts: $(VENV)/installed-dev  ## who may import whom
	$(BIN)/lint-imports

check: lint types contracts test  ## all of the above

proofs: $(VENV)/installed-dev  ## proofs that take minutes: long files, soaks, and KILLS=100 killed runs of video and of live
	RTSEG_KEEP_PROOFS=benchmarks/results $(BIN)/python -m pytest -m proof --timeout 1800
	RTSEG_KEEP_PROOFS=benchmarks/results $(BIN)/python tests/kills.py --kills $(or $(KILLS),100)

fuzz: $(VENV)/installed-dev  ## make fuzz [CASES=20000] [SEED=1]: changed files against a plain FFmpeg reading; goes on where it stopped
	RTSEG_KEEP_PROOFS=benchmarks/results $(BIN)/python tests/fuzz_media.py --cases $(or $(CASES),20000) --seed $(or $(SEED),1) --jobs $(or $(JOBS),2) --keep runs/fuzz

quantized: $(VENV)/installed-dev  ## make quantized DATA=path/to/camvid: the bundled `small` once more in INT8, if the proof keeps it
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
