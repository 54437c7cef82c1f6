# Every target works on a fresh machine with Python 3.11, git and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DO_NOT_TRACK := 1

.DEFAULT_GOAL := help
.PHONY: help run serve ui test lint format lock data clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: .venv/installed  ## bring the images up to date, run every stage that is stale, print the comparison
	@python -m flows.retrain

data: .venv/installed  ## use your own images: make data FROM=<folder | s3://... | git+repository#folder>
	@python -m flows.source "$(FROM)"

test: .venv/installed  ## run the test suite
	@python -m pytest

lint: .venv/installed  ## check style, and the parameters
	@ruff check . && ruff format --check . && python -m tasks.params > /dev/null

format: .venv/installed  ## mend what lint finds, where it can
	@ruff check --fix . && ruff format .

serve: .venv/installed  ## run on the schedules of prefect.yaml until interrupted
	@python -m flows.serve

ui: .venv/installed  ## open the pages of Prefect (http://127.0.0.1:4200) and MLflow (http://127.0.0.1:5000)
	@python -m flows.serve pages

lock:  ## solve pyproject.toml into requirements.txt again (needs uv)
	uv pip compile pyproject.toml --universal --generate-hashes --no-header --no-annotate --python-version 3.11 --upgrade \
		--extra s3 --extra serving --extra tuning --extra classical --extra dicom --extra dev --output-file requirements.txt

clean:  ## remove scratch that is made again when needed; never images, models or the registry
	rm -rf .cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

.venv/installed: requirements.txt
	@echo "setting up .venv (some minutes, once)"
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else f"Python 3.11 to 3.13 is needed, found {sys.version}: make PYTHON=/path/to/python3.11")'
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet --require-hashes --requirement requirements.txt
	@touch $@
