"""Checks of this machine for `flows.doctor`: Python, packages, settings, Git and params.yaml.

The machine may be broken, so a check imports only Python's library before it may fail.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flows import git
from flows.packages import LOCK, find_differences, find_version, list_some
from tasks import machine
from tasks.errors import UserError

LATE = "no answer within"
SPACE = 2e9  # bytes that a run of a small set needs
MAIN = (
    "tensorflow", "keras", "scikit-learn", "great-expectations", "mlflow", "prefect", "dvc",
    "gradio", "numpy", "pandas", "pillow",
)  # fmt: skip
# Variables that are listed; a value is shown only for SHOWN, as any other may hold a key.
OURS = re.compile(r"(PIPELINE|PREFECT|MLFLOW|KERAS|API)_\w+")
SHOWN = re.compile(
    r"API_(MODEL|NAME|HOST|PORT)|LOG_LEVEL|PYTHONPATH|LANG|LC_ALL|XLA_FLAGS|KERAS_HOME|"
    r"TF_(FORCE_GPU|GPU|NUM|CPP)_\w+|CUDA_VISIBLE_DEVICES|(OMP|MKL|OPENBLAS)_NUM_THREADS|"
    r"PREFECT_(HOME|PROFILE|PROFILES_PATH|LOGGING_LEVEL)|"
    r"MLFLOW_(EXPERIMENT_NAME|HTTP_REQUEST_\w+|TRACKING_INSECURE_TLS)"
)
# These variables have lines of their own.
SERVERS = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")


@dataclass(frozen=True)
class Finding:
    """One line of the page: wrong if it has a remedy, not known if its check was too slow."""

    name: str
    said: str
    remedy: str = ""
    known: bool = True


def check_machine() -> Iterator[Finding]:
    """Check Python, the platform, memory and disk."""
    yield Finding("Python", f"{platform.python_version()}, {sys.executable}")
    yield from check_venv(Path(".venv/bin/python"))
    yield Finding("platform", platform.platform())
    yield Finding("cores, memory", f"{_usable_cores()}, {_memory()}")
    free = shutil.disk_usage(".").free
    remedy = "" if free > SPACE else "free some: `dvc gc --workspace`"
    yield Finding("disk", f"{free / 1e9:.1f} GB free", remedy)
    if shutil.which("nvidia-smi"):
        query = ("--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
        yield Finding("GPU", run_quickly("nvidia-smi", *query))


def check_venv(python: Path) -> Iterator[Finding]:
    """Check the environment that `make` sets up; people may use another one."""
    remedy = "`make run` sets it up again"
    if python.is_symlink() and not python.exists():
        yield Finding(".venv", f"its Python is gone: {python.readlink()}", remedy)
    elif python.exists():
        said = run_quickly(str(python), "-I", "-c", "import filelock")
        if said.startswith(LATE):
            yield Finding(".venv", said, known=False)
        elif said:
            yield Finding(".venv", "its Python finds no packages", remedy)
    elif sys.prefix == sys.base_prefix:
        yield Finding(".venv", "there is none yet", "`make run` sets it up")


def _usable_cores() -> str:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{usable} of {os.cpu_count()} cores"


def _memory() -> str:
    """Return the memory of the machine; a container may have less."""
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.1f} GB"


def check_packages() -> Iterator[Finding]:
    """Compare the installed packages with the lock."""
    yield Finding("packages", ", ".join(f"{name} {find_version(name)}" for name in MAIN))
    try:
        found = find_differences(LOCK)
    except ImportError as error:
        remedy = "`rm -rf .venv && make run` sets up .venv"
        yield Finding("lock", f"cannot be compared: {error}", remedy)
        return
    if found:
        said = f"{len(found)} packages differ from {LOCK}:\n  {list_some(found)}"
        yield Finding("lock", said, f"`touch {LOCK} && make run` installs them")
    else:
        yield Finding("lock", f"all packages as in {LOCK}")


def check_settings() -> Iterator[Finding]:
    """List the variables of the pipeline and its libraries, and those that are ignored."""
    for name, value in sorted(os.environ.items()):
        listed = OURS.fullmatch(name) or SHOWN.fullmatch(name)
        if listed and name not in SERVERS and value != (machine.QUIET | machine.OURS).get(name):
            yield Finding(name, value if SHOWN.fullmatch(name) else "set")
    for name in machine.list_both_cases(machine.PROXIES):
        if name in os.environ:
            yield Finding(name, f"{os.environ[name]}; not used for addresses of this machine")
    for name, why in machine.SET_ASIDE.items():
        yield Finding("ignored", f"{name}: {why}")


def check_git() -> Iterator[Finding]:
    """Check Git and DVC in this folder."""
    yield _check_repository()
    there, raw = Path(".dvc").is_dir(), Path("data/raw")
    yield Finding("DVC", "set up" if there else "not set up here", "" if there else "`dvc init`")
    count = f"{len(list(raw.iterdir()))} entries" if raw.is_dir() else "none yet"
    ran = "" if Path("dvc.lock").exists() else "; no stage has run yet"
    yield Finding("images", f"{count} in data/raw{ran}")


def _check_repository() -> Finding:
    commit = "git add . && git commit -m start"
    if refusal := git.find_refusal():
        first = f"git init && {commit}" if refusal.remedy == "git init" else refusal.remedy
        return Finding("Git", refusal.why, f"`{first}`")
    head = run_quickly("git", "rev-parse", "HEAD")
    if head.startswith(LATE):
        return Finding("Git", head, known=False)
    if not re.fullmatch("[0-9a-f]{40,64}", head):
        return Finding("Git", "this repository has no commit yet", f"`{commit}`")
    changed = len(run_quickly("git", "status", "--porcelain").splitlines())
    branch = run_quickly("git", "branch", "--show-current") or "no branch"
    version = run_quickly("git", "--version")
    return Finding("Git", f"{version}, {branch} at {head[:10]}, {changed} files changed")


def check_params() -> Iterator[Finding]:
    """Check the whole of params.yaml."""
    try:
        from tasks.params.whole import load_params

        load_params()
    except ImportError:
        return  # the line of the lock reports it
    except UserError as error:
        remedy = "correct it: the schemas in tasks/params list every key"
        yield Finding("params.yaml", str(error), remedy)
    else:
        yield Finding("params.yaml", "is valid")


def run_quickly(*command: str, seconds: float = 3.0) -> str:
    """Return the English output of a command, its errors too."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds,
            env=os.environ | {"LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        return f"{LATE} {seconds:.0f} s"
    return (done.stdout + done.stderr).strip()
