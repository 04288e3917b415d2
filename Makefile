# Every command works from a clean clone: it builds .venv first, once. `make help` lists them.

VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest
USABLE := 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'

# A virtual environment that happens to be active, or a PYTHONPATH, must not leak into ours.
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH PIP_REQUIRE_VIRTUALENV PIP_USER PIP_TARGET PIP_PREFIX

.DEFAULT_GOAL := help
.PHONY: help setup demo run test check format unit integration e2e coverage chaos bench docs train-smoke clean

help:  ## This list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP)  ## Build .venv with everything in it; does nothing when it is up to date

demo: $(STAMP)  ## The main job: start the stack, make 500 pro_b images into out/, judge them, stop
	@$(BIN)/masan demo

run: $(STAMP)  ## Keep the stack up and print the curl line; Ctrl-C stops it
	@$(BIN)/masan up

# A test process that dies ends the run: xdist 3.8 never ends once it has replaced one (its issue 1378).
test: $(STAMP)  ## All tests but those of `make chaos`
	OMP_NUM_THREADS=1 $(PYTEST) -n 2 --dist loadfile --max-worker-restart 0 tests/unit tests/integration
	$(PYTEST) -m 'not chaos' tests/e2e

check: $(STAMP)  ## Format, lint, types, import contracts
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)  ## Format and mend what can be mended
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

unit: $(STAMP)  ## Unit tests
	$(PYTEST) tests/unit

integration: $(STAMP)  ## Tests on a real Valkey
	$(PYTEST) tests/integration

e2e: $(STAMP)  ## Tests of the whole stack over HTTP; E2E_BASE_URL=http://... tests a running one
	$(PYTEST) tests/e2e

coverage: $(STAMP)  ## Lines that unit and integration tests do not reach; processes of their own are not counted
	OMP_NUM_THREADS=1 $(PYTEST) --cov --cov-report=term -n 2 --dist loadfile tests/unit tests/integration

chaos: $(STAMP)  ## Kill, freeze and starve real processes in the middle of jobs; minutes
	$(PYTEST) tests/chaos
	$(PYTEST) -m chaos tests/e2e

bench: $(STAMP)  ## Every benchmark in benchmarks/
	@failed=; for script in $$(grep -l '__name__ == "__main__"' benchmarks/*.py); do \
	  echo "== $$script"; $(BIN)/python "$$script" || failed="$$failed $$script"; \
	done; [ -z "$$failed" ] || { echo "failed:$$failed" >&2; exit 1; }

docs: $(STAMP)  ## Renew the pages that are made of the code: model card, modules, OpenAPI
	$(BIN)/python docs/render.py
	@folder=$$(mktemp -d) && MASAN_MODEL_STORE_URL=$$folder MASAN_RESULT_STORE_URL=$$folder \
	  MASAN_SIGNING_KEY_FILE=$$folder/key.pem $(BIN)/python -m service --openapi > $$folder/openapi.json && \
	  mv $$folder/openapi.json docs/openapi.json && rm -rf $$folder

train-smoke: $(STAMP)  ## Train for a moment on made-up images, to see that training runs
	@rm -rf runs/smoke
	@$(BIN)/python -c "from pathlib import Path; from tests.smears import make_smear_dataset as make; make(Path('runs/smoke/data'))"
	$(BIN)/masan train --preset smoke --data runs/smoke/data --out runs/smoke/run

clean:  ## Remove what the commands above made, .venv included; data/, runs/ and out/ stay
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# The stamp is renewed only after a whole installation, so that an interrupted one is repeated.
$(STAMP): pyproject.toml constraints.txt
	@$(BIN)/python -c '' 2>/dev/null || { \
	  python=$$(for candidate in python3.13 python3.12 python3.11 python3; do \
	    $$candidate -c $(USABLE) 2>/dev/null && { command -v $$candidate; break; }; done); \
	  [ -n "$$python" ] || { echo "MASAN needs Python 3.11 or newer with its venv module (Debian: apt install python3-venv);" \
	    "none of python3.13, python3.12, python3.11, python3 on PATH is that" >&2; exit 1; }; \
	  echo "Making $(VENV) with $$python"; rm -rf $(VENV); "$$python" -m venv $(VENV); }
	@echo "Installing into $(VENV), once; torch is large"
	@$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@touch $(STAMP)
