# Two commands do everything on a fresh machine: `make demo` and `make test`.
# They need Python 3.11+, git and make; the rest is installed into .venv.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test fuzz lint audit lock model bench clean

demo: $(VENV)/.installed
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m agent.team.workflow

test: $(VENV)/.installed-dev
	@$(BIN)/python -m pytest --numprocesses 4 --dist loadfile

# Other inputs each time; it prints the --seed that makes them again.
FUZZ_INPUTS ?= 200000
FUZZ_PROCESSES ?= 2
FUZZ_TARGETS ?=

fuzz: $(VENV)/.installed-dev
	@PYTHONPATH=tests $(BIN)/python -m fuzz $(FUZZ_TARGETS) \
		--inputs $(FUZZ_INPUTS) --processes $(FUZZ_PROCESSES)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

audit: $(VENV)/.installed-dev
	$(BIN)/pip-licenses --summary
	$(BIN)/python -m tools.audit

lock: $(BIN)/python
	@$(PIP) 'uv>=0.8'
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --upgrade \
		--python-version 3.11 --extra dev pyproject.toml --output-file requirements-dev.lock

model: $(VENV)/.installed-model
	$(BIN)/python -m tools.tiny_coder build

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/demo.py
	$(BIN)/python benchmarks/race.py

clean:
	rm -rf $(VENV)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer found; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) 2>/dev/null \
	|| { $(PYTHON) -m venv --clear --without-pip $(VENV) \
		&& $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; } \
	|| { rm -rf $(VENV); echo "$(PYTHON) has neither ensurepip nor pip; on Debian: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV) (once)" >&2
	@$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml requirements-dev.lock | $(BIN)/python
	@echo "Installing with the development tools into $(VENV) (once)" >&2
	@$(PIP) --require-hashes -r requirements-dev.lock
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-model: tools/tiny_coder/requirements.txt | $(VENV)/.installed-dev
	@$(PIP) -r tools/tiny_coder/requirements.txt
	@touch $@
