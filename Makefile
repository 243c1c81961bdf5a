# `make demo` and `make test` set up .venv with pinned versions first; `make demo DATA=folder` runs on real data.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INPUTS ?= $(if $(wildcard $(DATA)/inputs.yaml),inputs.yaml,blood.yaml)
OUT ?= $(if $(DATA),demo-$(notdir $(abspath $(DATA))),demo)
# Where it is set, each process that a test starts would compile all that it imports: half a minute for torch and others.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check clean
demo: $(VENV)/installed
	$(BIN)/genebert demo --out $(OUT) $(if $(DATA),--data $(DATA) --inputs $(INPUTS))

# Neighbouring tests share fixtures, and worksteal keeps neighbours in one process.
test: $(VENV)/installed
	$(BIN)/python -m pytest -n auto --dist worksteal

check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/mypy

# Python compiles what is imported; compiling all of torch and transformers takes longer.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) demo demo-*
