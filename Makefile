# `make help` lists the targets. Each one sets up what it needs.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV ?= .venv
# A particular interpreter, such as PYTHON=python3.12; otherwise the first one found that fits.
PYTHON ?=
# Handed to pip, such as PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu".
PIP_FLAGS ?=
# Handed to pytest, such as PYTEST_FLAGS="-k quantize -x".
PYTEST_FLAGS ?=
# Test processes at a time.
JOBS ?= 2

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt $(PIP_FLAGS)
# A machine may have names of interpreters that do not start (version managers leave such shims): run it to know.
FITS := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))

.PHONY: help setup demo test test-fast fuzz lint format types models docs clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Create the virtual environment .venv and install everything in it

demo: $(STAMP) ## Compile the digits network and classify three encrypted images (some minutes the first time)
	@$(BIN)/python examples/demo.py

# A test process that crashes ends the run: after a restart the rest of its file may never be handed out. The order of
# files is that of tests/conftest.py. Tests start a hundred commands: without the bytecode that some containers switch
# off, each would translate the package anew. Threads that wait for work in a loop take it from the other test process.
TESTS = env -u PYTHONDONTWRITEBYTECODE OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n $(JOBS) --dist loadfile \
    --no-loadscope-reorder --max-worker-restart 0

test: $(STAMP) ## Run the whole test suite
	$(TESTS) $(PYTEST_FLAGS)

test-fast: $(STAMP) ## Run the tests that take no long time, between two edits
	$(TESTS) -m "not slow" $(PYTEST_FLAGS)

# Seconds for each of the three targets of `make fuzz`.
FUZZ_SECONDS ?= 600

fuzz: $(STAMP) ## Fuzz reading and compiling, FUZZ_SECONDS each (finds end up in build/fuzz)
	@$(PIP) --no-build-isolation -e '.[fuzz]'
	@mkdir -p build/fuzz/model build/fuzz/pipeline
	$(BIN)/python tests/hostile/fuzz.py model build/fuzz/model -artifact_prefix=build/fuzz/ \
	    -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=4096 -timeout=60
	$(BIN)/python tests/hostile/fuzz.py pipeline build/fuzz/pipeline -artifact_prefix=build/fuzz/ \
	    -max_total_time=$(FUZZ_SECONDS) -timeout=60
	$(BIN)/python benchmarks/soak.py build/fuzz/networks --seconds $(FUZZ_SECONDS)

lint: $(STAMP) ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## Mend what the linter can, and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# An editable install shows mypy the front door only, so it checks a plain one. build/lib is setuptools' scratch folder:
# a file that was removed since the last build would still be installed from there.
types: $(STAMP) ## Check the types of the whole package (mypy --strict)
	@rm -rf build/types build/lib
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps --no-build-isolation \
	    --target build/types .
	cd build/types && "$(abspath $(BIN))/python" -m mypy --config-file ../../pyproject.toml \
	    --cache-dir ../../.mypy_cache -p onnx_fhe

docs: $(STAMP) ## Write anew what docs/ reads off the code: how each operator runs encrypted, and the architecture
	@$(BIN)/python docs/make_operators.py
	@$(BIN)/python docs/make_architecture.py

# Each script writes the files beside it. The tools are no dependencies of the project and get an environment of their
# own: 3 GB, made anew when tests/models/tools.txt changes. Some walk through sets, whose order PYTHONHASHSEED settles.
TOOLS := build/tools

models: $(TOOLS)/.installed ## Remake the files of tests/models with the tools that wrote them (3 GB)
	@for script in tests/models/*/make_*.py; do \
	    PYTHONHASHSEED=0 PYTHONPATH=tests/models $(TOOLS)/bin/python -W ignore "$$script" || exit 1; done

$(TOOLS)/.installed: tests/models/tools.txt | $(STAMP)
	@echo "installing the tools into $(TOOLS) (a few minutes)"
	@$(BIN)/python -m venv --clear $(TOOLS)
	@$(TOOLS)/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt $(PIP_FLAGS) \
	    -r tests/models/tools.txt
	@touch $@

clean: ## Remove what was built (not the virtual environment)
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@if [ -e "$(VENV)" ]; then \
	    "$(BIN)/python" -c '$(FITS)' 2>/dev/null && "$(BIN)/python" -m pip --version >/dev/null 2>&1 || { \
	        echo "$(VENV) holds no working Python 3.10 to 3.12. Remove it and try again:"; \
	        echo "  rm -r $(VENV) && make setup"; exit 1; } >&2; \
	else \
	    for python in $(or $(PYTHON),python3.11 python3.12 python3.10 python3 python); do \
	        if "$$python" -c '$(FITS)' 2>/dev/null; then found=$$python; break; fi; \
	    done; \
	    [ -n "$${found:-}" ] || { \
	        echo "onnx-fhe needs Python 3.10, 3.11 or 3.12, and none was found."; \
	        echo "Install one, or name it: make setup PYTHON=/path/to/python3.11"; exit 1; } >&2; \
	    echo "creating $(VENV) with $$("$$found" --version)"; \
	    "$$found" -m venv "$(VENV)" || { rm -rf "$(VENV)"; \
	        echo "$$found cannot create virtual environments (on Debian: apt install python3-venv)."; exit 1; } >&2; \
	fi
	@echo "installing into $(VENV) (a minute or a few, mostly PyTorch, which concrete-python needs)"
	@$(PIP) setuptools
	@$(PIP) --no-build-isolation -e '.[dev]'
	@touch $@
