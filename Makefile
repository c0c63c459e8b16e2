# make demo   set up and run the whole journey on a made-up cohort
# make test   set up and run the tests: the fast ones first, then those that train, draw or start processes
# make test-fast   only the fast ones, in less than a minute
# make test-all    all, also networks of full size, the notebooks and the demo
# make lint   set up and check style and types
# make docs   set up and build the documentation into site/
VENV ?= .venv
PYTHON ?= $(shell for python in python3.12 python3 python3.13 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& echo $$python && break; done)
BIN := $(VENV)/bin

.PHONY: demo test test-fast test-all lint docs setup

demo: setup
	$(BIN)/knee3d demo --out runs/demo

# Two processes, because most of what takes long computes on both cores already.
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist worksteal
# Folders of slow tests alone, which import TensorFlow or Ray: not even collected by the fast ones.
SLOW := $(addprefix tests/,api cluster golden models networks test_losses.py test_metrics.py training)

test-fast: setup
	$(PYTEST) -m "not slow and not nightly" $(addprefix --ignore ,$(SLOW))

test: test-fast
	$(PYTEST) -m "slow and not nightly"

test-all: test
	$(PYTEST) -m nightly

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --strict --config-file= --ignore-missing-imports --follow-imports=silent docs/examples/journey.py

# Not --quiet, with which warnings are no errors. Without the notice that Material for MkDocs prints of its end of life (D101).
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	$(BIN)/python docs/check_site.py site
	@echo "open site/index.html; the search needs a server: $(BIN)/python -m http.server --directory site"

setup: $(VENV)/.installed

# Written last: an interrupted installation is done again.
$(VENV)/.installed: requirements.txt setup.py
	@test -n "$(PYTHON)" || { echo "knee3d needs Python 3.11 to 3.13; name one with: make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "no virtual environment could be made; on Debian: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@
