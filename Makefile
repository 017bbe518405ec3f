# `make demo` and `make test` set up all that they need (a virtual environment in .venv, the compiled kernels) and need
# no file from outside the repository. PYTHON: the interpreter to start from, 3.10 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := build/demo

.PHONY: demo test lint kernels plugin setup clean

setup: $(VENV)/.installed kernels

$(VENV)/.installed: setup.cfg setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("make needs Python 3.10 or newer, " + sys.version.split()[0] + \
	  " is " + sys.executable + "; say make PYTHON=/path/to/python3") if sys.version_info < (3, 10) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,export,test]'
	@touch $@

kernels:
	@$(MAKE) --no-print-directory -C kernels

# The TensorRT plugins, on a machine with TensorRT's headers and nvcc: make plugin [TENSORRT_ROOT=...] [CUDA_ROOT=...]
plugin:
	@$(MAKE) --no-print-directory -C kernels/trt plugin

demo: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" tools/demo.sh $(DEMO)

# one process a core; a few are enough, each needs memory for torch. Then what must have the machine for itself.
test: setup
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal -m 'not real_time'
	$(BIN)/python -m pytest -m real_time

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf build dist *.egg-info $(VENV)
	@$(MAKE) --no-print-directory -C kernels clean
