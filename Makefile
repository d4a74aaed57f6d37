# What there is to do here; `make` alone lists it. Everything lands in .venv/, build/ and .cache/.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
DEMO_SECONDS ?=
# Arguments for pytest and for the load test, e.g. make test TESTS="tests/protocol -k scram".
TESTS ?=
BENCH ?=
# -v shows what pip and the C compiler do.
PIP_VERBOSITY ?= -qq

python := $(VENV)/bin/python
pip := $(python) -m pip install $(PIP_VERBOSITY) --disable-pip-version-check --no-input
sources := pyproject.toml README.md LICENSE \
	$(shell find protocol proxy \( -name '*.py' -o -name '*.pxd' -o -name py.typed \) -print | sort)
BUILD ?= build
source_copy := $(BUILD)/src
wheel = $$(ls $(BUILD)/wheel/pgsluice-*.whl)
form = $(shell cat $(VENV)/.form)

.PHONY: help install demo test test-compiled test-pure test-pythons lint format bench clean

help: ## list what make can do
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

install: $(VENV)/.installed ## .venv with pgsluice, compiled where there is a C compiler (PYTHON=... chooses another Python)

demo: $(VENV)/.installed ## PostgreSQL, the proxy before it, a workload, and what it measured (DEMO_SECONDS=N ends by itself)
	@exec $(VENV)/bin/pgsluice demo $(if $(DEMO_SECONDS),--seconds $(DEMO_SECONDS))

test: $(VENV)/.test ## all tests against the installed form, then unit and smoke tests in the pure form

	@status=0; for form in compiled pure; do $(MAKE) --no-print-directory test-$$form || status=1; done; exit $$status

test-compiled: $(VENV)/.test parts
	@form=$(form); echo "== tests, $$form form"; \
	if [ "$$form" != compiled ] && [ -n "$$CI" ]; then echo "CI wants the compiled form"; exit 1; fi; \
	PYTHONPATH= PGSLUICE_TEST_FORM=$$form $(VENV)/bin/pytest $(TESTS)

test-pure: $(VENV)/.test parts
	@echo "== unit and smoke tests, pure form"; \
	PYTHONPATH=$(CURDIR)/$(source_copy) PGSLUICE_TEST_FORM=pure $(VENV)/bin/pytest -q -m "unit or smoke" $(TESTS)

# Asked again at every run of make: what was missing may be there by now.
.PHONY: parts
parts: $(VENV)/.test
	@$(python) tests/support/obtain.py

test-pythons: ## unit tests, compiled, on the other Pythons found (3.11, 3.12, 3.13)
	@PYTHON=$(PYTHON) sh tests/support/other-pythons.sh

lint: $(VENV)/.dev ## ruff, mypy and the architecture's contracts
	@status=0; run() { echo "$$@"; "$$@" || status=1; }; \
	run $(VENV)/bin/ruff check; \
	run $(VENV)/bin/ruff format --check; \
	run $(VENV)/bin/mypy; \
	run $(VENV)/bin/lint-imports --no-logo --cache-dir .cache/import-linter; \
	exit $$status

format: $(VENV)/.dev ## let ruff format and repair what it can
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

bench: $(VENV)/.bench parts ## compare with direct PostgreSQL and PgBouncer (BENCH="--quick ..." for its options)
	@exec $(python) -m loadtest $(BENCH)

clean: ## remove what make made
	rm -rf $(VENV) build dist .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
	find protocol proxy tests loadtest -name __pycache__ -type d -prune -exec rm -rf {} +
	find protocol proxy \( -name '*.so' -o -name '*.c' \) -exec rm -f {} +

$(python):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "pgsluice needs Python 3.11 or newer; $(PYTHON) is" \
			"$$($(PYTHON) --version 2>&1 || true). Name another one: make install PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) has no working venv module (Debian and Ubuntu: install python3-venv)" >&2; exit 1; }

# What was compiled before is used again, unless a module has gone or the build itself has changed.
discard_outdated_copy = \
	{ cmp -s pyproject.toml $(source_copy)/pyproject.toml && cd $(source_copy) && \
	find protocol proxy \( -name '*.py' -o -name '*.pxd' \) \
		-exec sh -c 'for each; do [ -e "$(CURDIR)/$$each" ] || exit 1; done' sh {} + ; } || rm -rf "$(CURDIR)/$(source_copy)"

# Built from a copy, so that nothing generated lies among the sources; the copy is also the pure form the tests run.
$(VENV)/.installed: $(sources) $(BUILD)/sources | $(python)
	@echo "Building and installing pgsluice into $(VENV) ..."
	@$(discard_outdated_copy)
	@rm -rf $(BUILD)/wheel && mkdir -p $(source_copy) $(BUILD)/wheel
	@tar -cf - --exclude='*.so' --exclude='*.c' --exclude=__pycache__ pyproject.toml README.md LICENSE protocol proxy \
		| tar -xpf - -C $(source_copy)
	@$(python) -m pip wheel $(PIP_VERBOSITY) --disable-pip-version-check --no-input --no-deps -w $(BUILD)/wheel ./$(source_copy)
	@$(pip) --no-deps --force-reinstall $$(ls $(BUILD)/wheel/pgsluice-*.whl)
	@$(pip) "$(wheel)[demo]"
	@$(python) -P -c 'from proxy.build import form; print(form())' > $(VENV)/.form
	@if [ "$$(cat $(VENV)/.form)" = compiled ]; then echo "pgsluice is installed, compiled: $(VENV)/bin/pgsluice"; else \
		echo "WARNING: pgsluice is installed, but not compiled ($$(cat $(VENV)/.form) form: works, costs more CPU)." \
			"It needs a C compiler and Python's headers; see why with: make install PIP_VERBOSITY=-v" >&2; fi
	@touch $@

# The list of the sources, touched when one comes or goes.
$(BUILD)/sources: FORCE
	@mkdir -p $(BUILD)
	@echo $(sources) | cmp -s - $@ || echo $(sources) > $@

.PHONY: FORCE
FORCE:

$(VENV)/.test: $(VENV)/.installed
	@echo "Installing what the tests need ..."
	@$(pip) "$(wheel)[test]"
	@touch $@

$(VENV)/.dev: $(VENV)/.test
	@echo "Installing what the checks need ..."
	@$(pip) "$(wheel)[dev]"
	@touch $@

$(VENV)/.bench: $(VENV)/.test
	@$(pip) "$(wheel)[bench]"
	@touch $@
