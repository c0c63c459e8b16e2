# make demo   set up and run the whole journey on a made-up cohort
# make test   set up and run all tests
# make lint   set up and check style and types
VENV ?= .venv
PYTHON ?= $(shell for python in python3.12 python3 python3.13 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& echo $$python && break; done)
BIN := $(VENV)/bin

.PHONY: demo test lint setup

demo: setup
	$(BIN)/knee3d demo --out runs/demo

test: setup
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: $(VENV)/.installed

# Written last: an interrupted installation is done again.
$(VENV)/.installed: requirements.txt setup.py
	@test -n "$(PYTHON)" || { echo "knee3d needs Python 3.11 to 3.13; name one with: make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "no virtual environment could be made; on Debian: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@
