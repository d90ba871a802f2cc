# Everything happens in .venv; outside this directory only pip and matplotlib keep their caches.
#   make setup   the environment                 make check   ruff and mypy
#   make demo    two workers and a server        make test    the test suite
#   make demo-recovery   kills processes of a job before your eyes, and compares what it ends with
#   make bench   dmod beside MXNet, torch, JAX   make oracle  MXNet 1.9.1 in .oracle, for comparison
#                                                make peers   torch and JAX in .peers, for comparison

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_DIR := demo-output

# The first interpreter that is new enough and can make environments; `make PYTHON=... setup` overrides.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	$$p -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
# MXNet 1.9.1 has wheels that work up to Python 3.11, and only with NumPy < 1.24.
ORACLE_PYTHON ?= $(shell for p in python3.10 python3.9 python3.8 python3.11 python3; do \
	$$p -c 'import ensurepip, sys; sys.exit(not (3, 8) <= sys.version_info[:2] <= (3, 11))' >/dev/null 2>&1 \
	&& { echo $$p; break; }; done)

.PHONY: setup demo demo-recovery test test-gpu check format bench oracle peers fixtures clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python >= 3.11 with ensurepip found (on Debian: apt install python3-venv);" \
		"name one with: make PYTHON=/path/to/python setup" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "Making $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing dmod and what its tests and examples need (1.6 GB: some minutes) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
	@echo "Ready: $$($(BIN)/python --version) in $(VENV)"

demo: $(STAMP)
	@mkdir -p $(DEMO_DIR)
	$(BIN)/dmod-launch -n 2 -s 1 -- $(BIN)/python examples/train_digits.py --kv-store dist_sync \
		--model-prefix $(DEMO_DIR)/digits --min-accuracy 0.96

demo-recovery: $(STAMP)
	$(BIN)/python benchmarks/recovery.py --watch

test: $(STAMP)
	$(BIN)/python -m pytest -q -m 'not gpu'

test-gpu: $(STAMP)
	$(BIN)/python -m pytest -q -m gpu

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP)
	$(BIN)/python benchmarks/step_time.py

oracle: .oracle/.installed

.oracle/.installed:
	@test -n "$(ORACLE_PYTHON)" || { echo "No Python 3.8 to 3.11 found;" \
		"name one with: make ORACLE_PYTHON=/path/to/python oracle" >&2; exit 1; }
	@echo "Installing MXNet 1.9.1 into .oracle with $$($(ORACLE_PYTHON) --version) ..."
	@$(ORACLE_PYTHON) -m venv .oracle
	@.oracle/bin/python -m pip install --quiet --disable-pip-version-check mxnet==1.9.1 numpy==1.23.5
	@touch $@
	@.oracle/bin/python -c 'import mxnet; print("Ready: MXNet", mxnet.__version__, "in .oracle")'

peers: .peers/.installed

.peers/.installed: $(STAMP)
	@echo "Installing torch and JAX into .peers ..."
	@$(BIN)/python -m venv .peers
	@.peers/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 jax \
		--extra-index-url https://download.pytorch.org/whl/cpu
	@touch $@
	@.peers/bin/python -c 'import jax, torch; print("Ready: torch", torch.__version__, "and JAX", jax.__version__)'

# Rewrites tests/fixtures from what MXNet computes; needs `make oracle`, or DMOD_ORACLE=/path/to/its/python.
fixtures:
	for make in $(filter-out %/make_family_fixtures.py,$(wildcard tests/oracle/make_*.py)); do \
		$(or $(DMOD_ORACLE),.oracle/bin/python) $$make || exit 1; done
	$(or $(DMOD_ORACLE),.oracle/bin/python) tests/oracle/make_family_fixtures.py \
		$(patsubst tests/oracle/cases_%.py,%,$(wildcard tests/oracle/cases_*.py))

clean:
	rm -rf $(DEMO_DIR) build dist .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
