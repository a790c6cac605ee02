# One command sets up, one builds, one tests, one lints. Every target does its own set-up, so
# `make demo` and `make test` work on a machine with Python, g++, make and pip only.
# Stamp files under .venv remember what is installed; what changed is done again, nothing else.

VENV := .venv
BIN := $(abspath $(VENV))/bin
STAMPS := $(VENV)/stamps
# Parallel compile jobs. torch's headers need about 1 GiB each.
JOBS ?= 2
# Further arguments for pytest, e.g. make test-python PYTEST_ARGS='-k bool -x'
PYTEST_ARGS ?=
# The first of these that runs makes the virtual environment.
PYTHON ?= $(firstword $(foreach p,python3.11 python3,$(shell $(p) -c 'print("$(p)")' 2>/dev/null)))

export PATH := $(BIN):$(PATH)
export CMAKE_BUILD_PARALLEL_LEVEL := $(JOBS)

.NOTPARALLEL:
.SUFFIXES:
.DELETE_ON_ERROR:
.PHONY: help dev build wheel wheel-check test-aarch64 add-torch matrix release-check demo memory-order emulated-gpu emulated-gpu-mutants emulated-gpu-peers bench bench-draw bench-compare docs docs-look test test-cpp test-consumers test-python test-exhaustive fuzz \
  test-asan test-tsan lint format clean FORCE

help:
	@echo 'make demo             convert a real model and show what is shared and what is protected'
	@echo 'make test             everything: lint, C++, consumer projects, Python'
	@echo 'make lint             formatting, types, the folder rule, exported symbols'
	@echo 'make test-cpp         C++ tests only'
	@echo 'make test-consumers   as others use it: find_package, plain C, the wheel'
	@echo 'make test-python      Python tests only (PYTEST_ARGS=...)'
	@echo 'make test-exhaustive  the Python tests that take minutes'
	@echo 'make test-asan        C++ tests under AddressSanitizer and UBSan'
	@echo 'make test-tsan        concurrent C++ tests under ThreadSanitizer'
	@echo 'make fuzz             the readers of file formats under libFuzzer (TARGET=..., RUNS=...)'
	@echo 'make bench            conversion times next to the other ways, from one run'
	@echo 'make bench-draw       charts and tables of the docs from the numbers of make bench'
	@echo 'make bench-compare    instructions of each operation against a commit (BASE=HEAD)'
	@echo 'make docs             the documentation as a site, in build/docs; warnings are errors'
	@echo 'make docs-look        every page of it in a browser, at six widths, light and dark'
	@echo 'make wheel            the one wheel for every supported Python, torch and TensorFlow (ARCH=aarch64)'
	@echo 'make wheel-check      the same with the symbols of the real torch libraries, which it reads'
	@echo 'make matrix           that wheel with many releases of Python and the frameworks; an hour, 7 GB'
	@echo 'make test-aarch64     the tests for aarch64 on another machine, emulated; hours, 10 GB'
	@echo 'make memory-order     the first write on every order of memory accesses; minutes'
	@echo 'make emulated-gpu     tests of the GPU path on an emulated device (no GPU); 7 GB'
	@echo 'make emulated-gpu-mutants  whether those tests notice a missing wait; -peers: other ways there'
	@echo 'make add-torch        adds a release of torch to the supported ones (RELEASE=...)'
	@echo 'make release-check    tests, sanitizers, fuzzing, the site, the wheel, and what would be published'
	@echo 'make dev              set up $(VENV) with everything, package installed editable'
	@echo 'make build            build and install the package (editable) into $(VENV)'
	@echo 'make format           format C++ and Python'
	@echo 'make clean            delete build folders and caches; $(VENV) stays'

# --- set-up -----------------------------------------------------------------------------------

$(STAMPS)/venv: | $(STAMPS)/system-build
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@touch $@

$(STAMPS)/system-%: tools/system_deps.sh
	@test -n '$(PYTHON)' || { echo 'make: no python3.11 and no python3 found'; exit 1; }
	tools/system_deps.sh $(PYTHON) $*
	@mkdir -p $(@D) && touch $@

$(STAMPS)/tools: pyproject.toml tools/install_group.py $(STAMPS)/venv
	$(BIN)/python tools/install_group.py dev frameworks -- --quiet
	@touch $@

$(STAMPS)/peers $(STAMPS)/draw $(STAMPS)/wheel $(STAMPS)/matrix $(STAMPS)/release $(STAMPS)/docs $(STAMPS)/look: $(STAMPS)/%: $(STAMPS)/tools
	$(BIN)/python tools/install_group.py $* -- --quiet
	@touch $@

$(STAMPS)/models $(STAMPS)/large-models: $(STAMPS)/%: $(STAMPS)/tools
	$(BIN)/python tools/install_group.py $* -- --quiet --no-deps
	@touch $@

$(STAMPS)/interop $(STAMPS)/loops $(STAMPS)/notebooks: $(STAMPS)/%: $(STAMPS)/tools
	$(BIN)/python tools/install_group.py $* -- --quiet
	@touch $@

# In a folder of its own, for the tests that put it on the path of their processes: beside TensorFlow
# it ends others.
$(STAMPS)/triton: $(STAMPS)/tools
	$(BIN)/python tools/install_group.py triton -- --quiet --no-deps --upgrade --target $(VENV)/triton
	@touch $@

# Also in a folder of its own: readers of TFRecord files, whose requirements contradict each other.
$(STAMPS)/record-peers: $(STAMPS)/tools
	$(BIN)/python tools/install_group.py record-peers -- --quiet --no-deps --upgrade --target $(VENV)/record-peers
	@touch $@

# The names of all files that make up the package: one that came or went is a change too.
$(STAMPS)/files: FORCE
	@mkdir -p $(@D)
	@find src include cmake python -type f -not -path '*/__pycache__/*' | sort > $@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

NATIVE := CMakeLists.txt $(shell find src include cmake -type f)
$(STAMPS)/package: $(NATIVE) pyproject.toml $(STAMPS)/files $(STAMPS)/tools
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable .
	@touch $@

build: $(STAMPS)/package

dev: build $(STAMPS)/models $(STAMPS)/interop $(STAMPS)/loops $(STAMPS)/triton $(STAMPS)/docs $(STAMPS)/system-tests $(STAMPS)/system-docs
	@echo 'Ready: . $(VENV)/bin/activate'

# ARCH=aarch64: for that processor, with a cross compiler on another.
ARCH ?=
export TENSOR_BRIDGE_ARCH := $(ARCH)
CROSS := $(if $(filter-out $(shell uname -m),$(ARCH)),$(STAMPS)/system-cross)

# Reads the headers out of a torch wheel of each group, 54 MB, once; what is linked is in lists.
wheel: $(STAMPS)/wheel $(CROSS)
	$(BIN)/python tools/build_wheel.py

# On demand: with the symbols of the real libraries of every supported torch. Writes the lists anew.
wheel-check: $(STAMPS)/wheel $(CROSS)
	$(BIN)/python tools/build_wheel.py --real
	git diff --exit-code --stat -- tools/torch_symbols

# On demand only. MATRIX_ARGS: names of environments, --again, --keep, -- and paths for pytest.
MATRIX_ARGS ?=
matrix: $(STAMPS)/matrix
	$(BIN)/python tools/matrix.py $(MATRIX_ARGS)

# On demand only. That wheel's tests and the C++ tests under an emulated aarch64; AARCH64_ARGS: parts, -- and
# paths for pytest.
AARCH64_ARGS ?=
test-aarch64: $(STAMPS)/wheel $(STAMPS)/matrix $(STAMPS)/system-cross $(STAMPS)/system-emulation
	TENSOR_BRIDGE_ARCH=aarch64 $(BIN)/python tools/build_wheel.py
	$(BIN)/python tools/aarch64.py $(AARCH64_ARGS)

# Adds a release of torch: layout, texts, wheels of both processors, an environment of the matrix.
# RELEASE: such as 2.16.0.
add-torch: $(STAMPS)/wheel $(STAMPS)/matrix $(STAMPS)/system-cross
	$(BIN)/python tools/add_torch.py $(RELEASE)

# On demand only. Needs Python alone.
memory-order: $(STAMPS)/venv
	$(BIN)/python tests/memory_order/first_write.py

# On demand only. No GPU: an emulated one, with CUDA builds of the frameworks in an environment of its
# own, or in the one that EMULATED_GPU_VENV names, which is not changed.
export EMULATED_GPU_VENV
emulated-gpu: $(STAMPS)/venv
	$(BIN)/python tests/gpu_emulator/emulated_gpu.py

# Whether those tests notice each wait that is taken out: an hour.
emulated-gpu-mutants: $(STAMPS)/venv
	$(BIN)/python tests/gpu_emulator/mutate.py

# Which other ways between the frameworks race there; writes the table of docs/concepts/gpu.md.
emulated-gpu-peers: $(STAMPS)/venv
	$(BIN)/python tests/gpu_emulator/emulated_gpu.py --command lazy -- python tests/gpu_emulator/peers.py
	$(BIN)/python tests/gpu_emulator/peers.py --table

# Everything there is to a release, on a clean clone: hours, because of what `make wheel-check` reads and
# the tests that take minutes. The results of `make matrix` are those that are committed.
release-check: test test-exhaustive test-asan test-tsan fuzz docs-look wheel-check $(STAMPS)/release
	tests/consumer/run.sh $(BIN)/python dist/*_$(shell uname -m).whl
	$(BIN)/python tools/release_check.py

# --- what it is for ---------------------------------------------------------------------------

demo: build $(STAMPS)/models
	$(BIN)/python examples/demo.py

# Measures, and keeps the numbers in benchmarks/results. BENCH_ARGS: names of single benchmarks (data, records,
# checkpoint and autograd run only so), --quick, --large. Wants a machine that does nothing else.
BENCH_ARGS ?=
bench: build $(STAMPS)/interop $(STAMPS)/peers $(STAMPS)/record-peers $(STAMPS)/system-benchmarks
	$(BIN)/python benchmarks/run.py $(BENCH_ARGS)

# Writes the charts and the tables of the docs from those numbers.
bench-draw: build $(STAMPS)/draw
	$(BIN)/python benchmarks/draw.py

# Counts instructions, so that a busy machine does not matter. BASE: any commit; the other side is the
# working tree. BENCH_ARGS='--fail-above 5' makes a regression an error.
BASE ?= HEAD
bench-compare: build $(STAMPS)/system-valgrind
	$(BIN)/python benchmarks/compare.py '$(BASE)' $(BENCH_ARGS)

# Made anew each time: a warning about a page that did not change would not come again.
docs: build $(STAMPS)/docs $(STAMPS)/system-docs
	rm -rf build/docs build/docs-cache
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -c docs/site -d build/docs-cache . build/docs
	@echo 'build/docs/index.html'

# LOOK_ARGS: --shots FOLDER keeps pictures; parts of the names of pages.
LOOK_ARGS ?=
docs-look: docs $(STAMPS)/look $(STAMPS)/system-browser
	$(BIN)/python tools/docs_pages.py $(LOOK_ARGS)

# --- tests ------------------------------------------------------------------------------------

test: lint test-cpp test-consumers test-python

test-cpp: $(STAMPS)/tools $(STAMPS)/system-tests
	cmake --preset test
	cmake --build --preset test
	ctest --preset test

test-asan test-tsan: test-%: $(STAMPS)/tools $(STAMPS)/system-tests
	cmake --preset $*
	cmake --build --preset $*
	ctest --preset $*

# Every reader of a file format under libFuzzer, with sanitizers and a limit on what it allocates.
# New inputs go to build/fuzz/corpus; the seeds are kept in the tree.
RUNS ?= 1000000
CLANGXX = $(firstword $(shell command -v clang++ || ls /usr/bin/clang++-* 2>/dev/null))
FUZZED := $(patsubst tests/fuzz/%_fuzz.cc,%,$(wildcard tests/fuzz/*_fuzz.cc))
# TARGET: one or several of them, all when none is given.
TARGET ?= $(FUZZED)
fuzz: $(addprefix fuzz-,$(TARGET))

fuzz-%: build $(STAMPS)/system-fuzz
	@mkdir -p build/fuzz/corpus/$*
	$(CLANGXX) -std=c++17 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
	  -Iinclude -Isrc -isystem $(dir $(firstword $(wildcard build/*/include/dlpack))) \
	  tests/fuzz/$*_fuzz.cc $(wildcard src/formats/*.cc) $(addprefix src/core/,dtype.cc error.cc) -o build/fuzz/$*_fuzz
	build/fuzz/$*_fuzz -runs=$(RUNS) -max_len=16384 -timeout=5 -rss_limit_mb=512 -malloc_limit_mb=64 \
	  build/fuzz/corpus/$* tests/fuzz/seeds/$*

test-consumers: test-cpp build
	tests/consumer/run.sh $(BIN)/python

# Most tests in one process a core, then those that count, in processes that ran no others. $(3) and
# $(4) say how each part is shared out; 5: none was selected.
PYTEST := $(BIN)/python -m pytest tests/python
define pytest-marked
	$(PYTEST) -m '$(1) and not alone' -n $(JOBS) $(4) $(2) $(PYTEST_ARGS) || test $$? -eq 5
	$(PYTEST) -m '$(1) and alone' $(3) $(2) $(PYTEST_ARGS) || test $$? -eq 5
endef

# What a file prepares for its tests is prepared once, in one process. The last files are short.
WHOLE_FILES := --dist loadfile --no-loadscope-reorder

test-python: dev
	$(call pytest-marked,not exhaustive,,-n $(JOBS) --dist loadfile,$(WHOLE_FILES))

test-exhaustive: dev $(STAMPS)/large-models $(STAMPS)/notebooks
	$(call pytest-marked,exhaustive,--timeout 7200,,--dist worksteal)

CXX_FILES = $(shell git ls-files --cached --others --exclude-standard -- '*.cc' '*.h' '*.c')

lint: dev
	@echo 'clang-format --dry-run --Werror' && clang-format --dry-run --Werror $(CXX_FILES)
	ruff check .
	ruff format --check .
	mypy
	$(BIN)/python -m mypy.stubtest --mypy-config-file pyproject.toml --allowlist tests/typed/stubtest.txt tensor_bridge._C
	$(BIN)/python -m pytest --quiet tests/lint -n $(JOBS) --dist loadfile

format: $(STAMPS)/tools
	clang-format -i $(CXX_FILES)
	ruff check --fix-only .
	ruff format .

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis $(STAMPS)/package
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
