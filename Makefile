# Every target works on a fresh machine with Python 3.11, git and make.
# PYTHON is found before .venv is on the path, and is never .venv's own: a recipe removes that.
ifeq ($(origin PYTHON),undefined)
PYTHON := $(shell PATH="$$(printf '%s' "$$PATH" | tr ':' '\n' | grep -vx -F -e "$$(pwd)/.venv/bin" -e "$$(pwd -P)/.venv/bin" \
	| paste -s -d ':' -)"; command -v python3.11 || command -v python3)
endif
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DO_NOT_TRACK := 1
export PYTHONUTF8 := 1
# Python and DVC read these before the pipeline can ignore them (tasks/machine.py has the others).
unexport PYTHONHOME PYTHONINSPECT PYTHONIOENCODING PYTHONOPTIMIZE PYTHONSAFEPATH PYTHONWARNINGS
BASE ?= origin/main
# The name of a folder, with dollars and quotes.
override export FROM := $(value FROM)
SUPPORTED := import sys; v = sys.version_info[:2]; \
	sys.exit(None if (3, 11) <= v < (3, 14) else f"Python 3.11 to 3.13 is needed, found {sys.version}: make PYTHON=/path/to/python3.11")

.DEFAULT_GOAL := help
.PHONY: help run plan data recipe serve worker ui api web doctor pull push comment post check test lint docs format lock clean broken install relocatable

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: .venv/installed  ## update the images, run every stale stage: ARGS="--force --stages train@cnn_a ..."
	@python -m flows.retrain $(ARGS)

plan: .venv/installed  ## show what a run would do and why, and estimates of time, memory and disk
	@python -m flows.plan $(ARGS)

data: .venv/installed  ## use your own images: make data FROM=<folder | s3://... | git+repository#folder | sklearn:digits>
	@python -m flows.import_images "$$FROM" $(ARGS)

recipe: .venv/installed  ## write params.yaml for a task in recipes/: make recipe NAME=photo_filter (ARGS=--force overwrites edits)
	@python -m tasks.params.recipe "$(NAME)" $(ARGS)

check: lint  ## run lint and the quick tests: under two minutes
	@python -m pytest -n 2 -m "not slow"

test: .venv/installed  ## run all tests
	@python -m pytest -n 3

lint: .venv/installed  ## check style, types, imports between packages, parameters and workflows
	@ruff check . && ruff format --check . && mypy && lint-imports --no-logo --cache-dir .cache/import_linter && python -m tasks.params > /dev/null
	@check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml

docs: .venv/installed  ## build the documentation into .cache/site and check its links; ARGS=serve shows it: http://127.0.0.1:8010
	@NO_MKDOCS_2_WARNING=1 python -m mkdocs $(or $(ARGS),build --strict)

format: .venv/installed  ## fix style where a tool can
	@ruff check --fix . && ruff format .

serve: .venv/installed  ## run the schedules of prefect.yaml until interrupted
	@python -m flows.serve

worker: .venv/installed  ## run stages for other machines in this clone: make worker POOL=gpu (PREFECT_API_URL names the server)
	@python -m flows.serve worker $(or $(POOL),$(error make worker POOL=<name of a Prefect work pool>))

ui: .venv/installed  ## open the web pages of Prefect (http://127.0.0.1:4200) and MLflow (http://127.0.0.1:5000)
	@python -m flows.serve pages

api: .venv/installed  ## predict over HTTP with the champion: http://127.0.0.1:8000; ARGS="--model 3 --port 8001"
	@python -m serving.api $(ARGS)

web: .venv/installed  ## open a page that predicts with the champion: http://127.0.0.1:7860; ARGS="--model 3 --port 8080"
	@python -m serving.web $(ARGS)

doctor:  ## check this machine within ten seconds, and print a page for a bug report
	@python=.venv/bin/python; $$python -c "" 2>/dev/null || python=$(PYTHON); $$python -c '$(SUPPORTED)' && $$python -m flows.doctor

pull: .venv/installed  ## pull images, results and run cache from DVC's remote; without a remote, update the images
	@if [ -n "$$(python -m dvc remote list)" ]; then python -m dvc pull --run-cache --allow-missing; else python -m dvc update data/raw.dvc; fi

push: .venv/installed  ## publish results: dvc push, commit the pointers on this branch, git push
	@python -m flows.publish

comment: .venv/installed  ## write comment.md for a pull request: report, changes of metrics and parameters since BASE (origin/main)
	@{ cat data/report/report.md; printf '\n#### Metrics against $(BASE)\n\n'; python -m dvc metrics diff --md $(BASE) --targets data/comparison.json; \
		printf '\n#### Parameters against $(BASE)\n\n'; python -m dvc params diff --md $(BASE); } > comment.md

post: comment  ## post comment.md on pull request PR (needs gh and a login)
	@gh pr comment $(PR) --edit-last --create-if-none --body-file comment.md

lock:  ## write requirements.txt from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --universal --generate-hashes --no-header --no-annotate --python-version 3.11 --upgrade \
		--extra s3 --extra postgres --extra serving --extra dicom --extra heic --extra dev --output-file requirements.txt

clean:  ## remove scratch; never images, models or the registry
	rm -rf .cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# A Python that was upgraded or removed leaves a .venv that finds no package: it is set up again.
.venv/installed: requirements.txt $(shell .venv/bin/python -I -c "import filelock" 2>/dev/null || echo broken)
	@$(PYTHON) -c '$(SUPPORTED)'
	@echo "setting up .venv, once: the packages of requirements.txt take about 3 GB"
	@$(if $(filter broken,$^),rm -rf .venv)
	@$(PYTHON) -m venv .venv
	@eval "$$INSTALL"
	@.venv/bin/python -c "$$RELOCATABLE"
	@touch $@

install:
	@eval "$$INSTALL"

# uv installs the lock in a fraction of pip's time. It is taken from the PATH, else fetched; without it, or where it fails
# (it does not read all of pip's settings, such as certificates), pip does the same.
define INSTALL
lock="--no-deps --require-hashes --requirement requirements.txt"
uv=$$(command -v uv) || {
	sed -n '/^uv==/,/[^\\]$$/p' requirements.txt > .venv/uv.txt
	.venv/bin/python -m pip install --quiet --retries 0 --timeout 10 --no-deps --require-hashes \
		--requirement .venv/uv.txt 2> /dev/null && uv=.venv/bin/uv
}
index=$${PIP_INDEX_URL:-$$(.venv/bin/python -m pip config get global.index-url 2> /dev/null)}
[ -z "$$index" ] || export UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$$index}"
with_uv() { echo "installing with uv"; { "$$uv" pip install --python .venv/bin/python $$lock; echo "status $$?"; } 2>&1 | $(PYTHON) -c "$$PROGRESS"; }
with_pip() { echo "installing with pip: some minutes"; { .venv/bin/python -m pip install $$lock; echo "status $$?"; } 2>&1 | $(PYTHON) -c "$$PROGRESS"; }
{ [ "$$uv" ] && with_uv; } || with_pip
endef
export INSTALL

# On a terminal, one line says how far the installer is. What it says of a failure stays.
define PROGRESS
import re, sys
STEP = re.compile(r" *(Downloaded|Built|Collecting|Installing) (collected packages|\S+)")
NOISE = re.compile(r" [-+] |   |Building|Downloading|Ignoring|Looking|Requirement|Success|Uninstalled|Using")
done = 0
clear = "\r\033[K" if sys.stdout.isatty() else ""
for line in sys.stdin:
    step = STEP.match(line)
    done += bool(step)
    if line.startswith("status "):
        print(clear, end="")
        sys.exit(int(line.split()[1]))
    if step and clear:
        print(f"{clear}  {done}: {step[1].lower()} {step[2]}", end="", flush=True)
    elif not step and not NOISE.match(line):
        print(clear + line, end="", flush=True)
endef
export PROGRESS

# Scripts name the folder that they were installed in. So that a project can be moved, they look for the Python beside them.
define RELOCATABLE
import pathlib, re
FIRST = re.compile(rb"\A#!(?:/bin/sh\n'''exec' )?\"?[^\n]*/\.venv/bin/python[^\n]*\n(?:' '''\n)?")
BESIDE = b"""#!/bin/sh\n'''exec' "$$(dirname -- "$$(realpath -- "$$0" 2>/dev/null || echo "$$0")")/python" "$$0" "$$@"\n' '''\n"""
for path in pathlib.Path(".venv/bin").iterdir():
    if path.is_file() and not path.is_symlink():
        path.write_bytes(FIRST.sub(lambda _: BESIDE, path.read_bytes(), count=1))
activate = pathlib.Path(".venv/bin/activate")
here = '"$$(cd "$$(dirname "$${BASH_SOURCE:-$$0}")/.." && pwd)"'
activate.write_text(re.sub(r"(?m)^( *VIRTUAL_ENV=).*$$", lambda line: line[1] + here, activate.read_text()))
endef
export RELOCATABLE

relocatable:
	@.venv/bin/python -c "$$RELOCATABLE"
