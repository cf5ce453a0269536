# make demo: compress a sample, no torch needed. make test: everything that CI runs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py $(wildcard lmcompress/native/*.c lmcompress/native/*.h)

.PHONY: demo test fuzz clean

demo: $(VENV)/demo.stamp
	$(BIN)/python -m benchmarks.demo

test: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

fuzz: $(VENV)/test.stamp
	$(BIN)/python -m tests.fuzz --n 100000

# the C extension is built by the install; it runs again only when something that it reads has changed
$(VENV)/%.stamp: $(SOURCES) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[$*]"
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) build *.egg-info lmcompress/*.so
