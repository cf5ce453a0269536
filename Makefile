# make demo: compress a sample, no torch needed. make test: everything that CI runs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py $(wildcard lmcompress/native/*.c lmcompress/native/*.h)

.PHONY: demo test bench docs fuzz sanitize cross clean

demo: $(VENV)/demo.stamp
	$(BIN)/python -m benchmarks.demo

test: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/mypy
	LMC_TEST_ALL=1 $(BIN)/python -m pytest

# the samples with every codec that is installed; tables and plots of all results there are
bench: $(VENV)/bench.stamp
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks report

# docs/API.md, from the docstrings; a test compares
docs: $(VENV)/demo.stamp
	$(BIN)/python docs/api.py

fuzz: $(VENV)/test.stamp
	$(BIN)/python -m tests.fuzz --n 100000
	$(BIN)/python -m pip install --quiet atheris
	$(BIN)/python -m tests.fuzz_parser -max_total_time=300

# the C code under ASan, UBSan and TSan
sanitize: $(VENV)/test.stamp
	PYTHON=$(abspath $(BIN)/python) tests/sanitize.sh

# the kernels on aarch64 and s390x under qemu-user; needs Debian's gcc-aarch64-linux-gnu, gcc-s390x-linux-gnu, qemu-user
cross: $(VENV)/test.stamp
	PYTHON=$(abspath $(BIN)/python) tests/cross/run.sh

# the C extension is built by the install; it runs again only when something that it reads has changed
$(VENV)/%.stamp: $(SOURCES) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[$*]"
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) build *.egg-info lmcompress/*.so
