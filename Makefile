# Everything runs in .venv, which is built from requirements.lock. `make help` lists the targets.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready
PORT ?= 5000
# Lets DVC's stages find regcls even if .venv is not activated.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Bytecode is compiled on first import; compiling 200 packages at installation would double its time.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help venv repro test lint audit gpu-report ui serve lock clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

venv: $(READY)  ## set up .venv from requirements.lock, and let `mlflow run .` use it

$(READY): requirements.lock pyproject.toml python_env.yaml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is older than Python 3.11; name another with: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	$(BIN)/regcls setup
	@touch $@

repro: $(READY)  ## set up, then data -> runs -> reports/index.html of `datasets` in params.yaml (dvc repro)
	@regcls doctor --repair
	dvc repro
	@echo "Open reports/index.html, or compare the runs with: make ui"

test: $(READY)  ## set up, then run the tests, one process per core
	python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

lint: $(READY)  ## check style and types
	ruff check .
	ruff format --check .
	mypy

audit: $(READY)  ## look for known vulnerabilities in the locked packages (pip-audit); exceptions with reasons: .ci/audit-exceptions.toml
	python .ci/audit

# Not $(READY): a borrowed machine with a GPU may have PyTorch, but no way to install the rest. Options: make gpu-report ARGS='--minutes 4'
gpu-report:  ## measure what the work costs on this machine's GPU, in eight minutes: results/gpu/<card>/report.md
	"$$(command -v $(BIN)/python || echo $(PYTHON))" benchmarks/gpu.py $(ARGS)

ui: $(READY)  ## show the tracked runs at http://127.0.0.1:5000 (mlflow ui)
	mlflow ui

# New experiments get the absolute path of mlartifacts, as with `regcls` without a server, so that each can read what the other writes.
serve: $(READY)  ## run a tracking server at http://127.0.0.1:5000 on mlflow.db, for several concurrent processes (make serve PORT=5001)
	@test -e mlflow.db || MLFLOW_TRACKING_URI= regcls setup
	@echo "In other shells: export MLFLOW_TRACKING_URI=http://127.0.0.1:$(PORT)"
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true mlflow server --host 127.0.0.1 --port $(PORT) --workers 1 \
	  --backend-store-uri sqlite:///mlflow.db --default-artifact-root "$(CURDIR)/mlartifacts" --artifacts-destination "$(CURDIR)/mlartifacts"

lock: $(READY)  ## resolve requirements.lock again from pyproject.toml
	pip-compile --quiet --upgrade --extra server --extra cluster --extra dev --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	  --no-header --annotation-style=line --output-file .lock.new pyproject.toml
	{ sed -n '/^#/p;/^#/!q' requirements.lock; sed -E 's/^(torch==[0-9.]+)\+cpu/\1/; s/ \(pyproject.toml\)//' .lock.new; } > requirements.lock.part
	mv requirements.lock.part requirements.lock && rm .lock.new

clean:  ## remove .venv and the stages' outputs, but no data and no tracked runs
	rm -rf .venv build reports runs .pytest_cache .mypy_cache .ruff_cache
