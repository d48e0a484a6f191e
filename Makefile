# Everything a developer runs. Each target sets up what it needs: a virtual environment in .venv, from PyPI alone.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OLDEST := .venv-oldest
WORKERS ?= 2

.PHONY: help demo test test-oldest check format docs bench clean

help:  ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "storeconf needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	touch $@

demo: $(READY)  ## Run the example shop on embedded stores and show what happens
	@$(BIN)/python examples/shop/demo.py

test: $(READY)  ## Run all tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# The oldest client libraries with the newest of all else; what brings the servers asks for newer ones, but only to use them.
$(OLDEST)/.ready: pyproject.toml
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps 'redis==5.2.1' 'valkey==6.0.2'
	touch $@

test-oldest: $(OLDEST)/.ready  ## Run the tests of the server stores on the oldest client libraries
	$(OLDEST)/bin/python -m pytest -n $(WORKERS) tests/stores/test_server_clients.py tests/stores/test_server_settings.py \
	    tests/stores/test_server_keys.py tests/stores/test_server_topologies.py -m 'not slow'

check: $(READY)  ## Lint, check the format and the types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## Format and mend what can be mended
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

docs: $(READY)  ## Build the documentation site; a warning is an error
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(READY)  ## Measure storeconf side by side with its peers
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group bench
	$(BIN)/python -m benchmarks

clean:  ## Remove what the other targets made
	rm -rf $(VENV) $(OLDEST) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist site
