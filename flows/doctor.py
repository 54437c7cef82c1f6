"""Check this machine, and print a page for a bug report: `python -m flows.doctor` (`make doctor`).

Each line is ok or wrong, and says what to do. The page holds no secrets: passwords and tokens are
masked, the home folder is ~. It is for machines where something is broken, so it needs nothing but
Python, and no check stops another.
"""

import importlib.metadata
import os
import platform
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks import machine
from tasks.errors import UserError
from tasks.tracking import servers

SECONDS = 7.0  # for all checks together, side by side
PATIENCE = 4.0  # for a server
LATE = "no answer within"
BUSY = 1.0  # for a database that another process is writing
SPACE = 2e9  # bytes that a run of a small set needs
NAMED = 10  # packages that a message lists
LOCK = Path("requirements.txt")
MAIN = (
    "tensorflow", "keras", "scikit-learn", "great-expectations", "mlflow", "prefect", "dvc", "gradio",
    "numpy", "pandas", "pillow",
)  # fmt: skip
PORTS = {4200: "make serve, make ui", 5000: "make ui", 7860: "make web", 8000: "make api"}
OURS = re.compile(
    r"(PIPELINE|PREFECT|MLFLOW|KERAS|API)_\w+"
)  # named; the value may hold a key, whatever the name
SHOWN = re.compile(  # whose values hold no key
    r"API_(MODEL|NAME|HOST|PORT)|LOG_LEVEL|PYTHONPATH|LANG|LC_ALL|TF_(FORCE_GPU|GPU|NUM|CPP)_\w+|XLA_FLAGS|"
    r"CUDA_VISIBLE_DEVICES|(OMP|MKL|OPENBLAS)_NUM_THREADS|KERAS_HOME|PREFECT_(HOME|PROFILE|PROFILES_PATH|LOGGING_LEVEL)|"
    r"MLFLOW_(EXPERIMENT_NAME|HTTP_REQUEST_\w+|TRACKING_INSECURE_TLS)"
)
SERVERS = (
    "PREFECT_API_URL",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_REGISTRY_URI",
)  # which have lines of their own
INPUT = re.compile(r"input_value=.*")  # in pydantic's messages


@dataclass(frozen=True)
class Finding:
    """One line of the page; what to do where it is wrong, and whether it could be looked at in time."""

    name: str
    said: str
    remedy: str = ""
    known: bool = True


def check_machine() -> Iterator[Finding]:
    """Python, the platform, and what the machine has."""
    yield Finding("Python", f"{platform.python_version()}, {sys.executable}")
    yield from check_venv(Path(".venv/bin/python"))
    yield Finding("platform", platform.platform())
    yield Finding("cores, memory", f"{usable_cores()}, {memory()}")
    free = shutil.disk_usage(".").free
    yield Finding(
        "disk",
        f"{free / 1e9:.1f} GB free",
        "" if free > SPACE else "free some: `dvc gc --workspace`",
    )
    if shutil.which("nvidia-smi"):
        asked = ("--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
        yield Finding("GPU", run("nvidia-smi", *asked))


def check_venv(python: Path) -> Iterator[Finding]:
    """The environment that `make` sets up; people may bring another."""
    if python.is_symlink() and not python.exists():
        yield Finding(
            ".venv", f"its Python is gone: {os.readlink(python)}", "`make run` sets it up again"
        )
    elif python.exists() and (said := run(str(python), "-I", "-c", "import filelock")):
        late = said.startswith(LATE)
        found, remedy = (
            (said, "") if late else ("its Python finds no packages", "`make run` sets it up again")
        )
        yield Finding(".venv", found, remedy, known=not late)
    elif not python.exists() and sys.prefix == sys.base_prefix:
        yield Finding(".venv", "there is none yet", "`make run` sets it up")


def usable_cores() -> str:
    """Return how many cores this process may use, of how many."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{usable} of {os.cpu_count()} cores"


def memory() -> str:
    """Return the memory of the machine; a container may have less."""
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.1f} GB"


def check_packages() -> Iterator[Finding]:
    """The installed packages against the lock."""
    yield Finding("packages", ", ".join(f"{name} {version(name)}" for name in MAIN))
    try:
        found = differences(LOCK)
    except ImportError as error:
        yield Finding(
            "lock", f"cannot be compared: {error}", "`rm -rf .venv && make run` sets up .venv"
        )
        return
    if not found:
        yield Finding("lock", f"all packages as in {LOCK}")
        return
    more = [f"… and {len(found) - NAMED} more"] if len(found) > NAMED else []
    said = "\n  ".join([f"{len(found)} packages differ from {LOCK}:", *found[:NAMED], *more])
    yield Finding("lock", said, f"`touch {LOCK} && make run` installs them")


def version(package: str) -> str:
    """Return the installed version of a package, which is not imported."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "is missing"


def differences(lock: Path) -> list[str]:
    """Return the installed packages that differ from a lock, in words."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = lock.read_text(encoding="utf-8").splitlines() if lock.exists() else []
    wanted = [Requirement(line.rstrip(" \\")) for line in lines if line[:1].isalnum()]
    installed = {
        canonicalize_name(found.name): found.version
        for found in importlib.metadata.distributions()
        if found.name
    }
    found = [
        (package, installed.get(canonicalize_name(package.name)))
        for package in wanted
        if package.marker is None or package.marker.evaluate()
    ]
    return [
        f"{package.name} {here or 'is missing'}, expected {package.specifier}"
        for package, here in found
        if here is None or here not in package.specifier
    ]


def check_settings() -> Iterator[Finding]:
    """What is set for the pipeline and its libraries, and what of it is set aside."""
    for name, value in sorted(os.environ.items()):
        ours = OURS.fullmatch(name) or SHOWN.fullmatch(name)
        if ours and name not in SERVERS and value != (machine.QUIET | machine.OURS).get(name):
            yield Finding(name, value if SHOWN.fullmatch(name) else "set")
    for name in machine.both_cases(machine.PROXIES):
        if name in os.environ:
            yield Finding(name, f"{os.environ[name]}; never asked for this machine itself")
    for name, why in machine.SET_ASIDE.items():
        yield Finding("does not count", f"{name}: {why}")


def check_git() -> Iterator[Finding]:
    """The state of Git and DVC in this folder."""
    if shutil.which("git"):
        yield look_at_git()
    else:
        yield Finding("Git", "is not installed", "install git")
    there, raw = Path(".dvc").is_dir(), Path("data/raw")
    yield Finding("DVC", "set up" if there else "not set up here", "" if there else "`dvc init`")
    images = (
        f"{len(list(raw.iterdir()))} entries in data/raw"
        if raw.is_dir()
        else "none in data/raw yet"
    )
    yield Finding(
        "images", images if Path("dvc.lock").exists() else f"{images}, nothing was run yet"
    )


def look_at_git() -> Finding:
    """Return what Git says of this folder."""
    head = run("git", "rev-parse", "HEAD")
    if "dubious ownership" in head:
        remedy = f"`git config --global --add safe.directory '{Path.cwd()}'`"
        return Finding("Git", "this folder belongs to another user", remedy)
    if head.startswith(LATE):
        return Finding("Git", head, known=False)
    if "unknown revision" in head:
        return Finding(
            "Git", "this repository has no commit yet", "`git add . && git commit -m start`"
        )
    if not re.fullmatch("[0-9a-f]{40,64}", head):
        return Finding(
            "Git", head.partition("\n")[0], "`git init && git add . && git commit -m start`"
        )
    changed = len(run("git", "status", "--porcelain").splitlines())
    branch = run("git", "branch", "--show-current") or "no branch"
    return Finding(
        "Git", f"{run('git', '--version')}, {branch} at {head[:10]}, {changed} files changed"
    )


def check_params() -> Iterator[Finding]:
    """The whole of params.yaml."""
    try:
        from tasks.params.whole import load_params

        load_params()
    except ImportError:
        return  # the line of the lock says it
    except UserError as error:
        yield Finding(
            "params.yaml", str(error), "correct it: the schemas in tasks/params list every key"
        )
    else:
        yield Finding("params.yaml", "can be read")


def check_prefect() -> Iterator[Finding]:
    """Prefect's server and its records."""
    address, where, undo = prefect_address()
    if address:
        yield ask("PREFECT_API_URL", address, where, undo)
    yield look_at_store(prefect_home() / "prefect.db", "prefect")


def check_prefect_settings() -> Iterator[Finding]:
    """Whether Prefect takes what is set for it."""
    command = (sys.executable, "-c", "import prefect.settings as s; s.get_current_settings()")
    said = run(*command, seconds=SECONDS - 1) if version("prefect") != "is missing" else ""
    if said.startswith(LATE):
        yield Finding("Prefect's settings", said, known=False)
    elif said:
        remedy = "correct it in the environment, or with `prefect config` and `prefect profile`"
        yield Finding(
            "Prefect's settings", INPUT.sub("…", "\n  ".join(said.splitlines()[-4:])), remedy
        )


def prefect_home() -> Path:
    """Return where Prefect keeps its profiles and records."""
    return Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()


def prefect_address() -> tuple[str, str, str]:
    """Return the address of the Prefect server that is set, where it is set, and how to undo that."""
    if os.environ.get("PREFECT_API_URL"):
        return os.environ["PREFECT_API_URL"], "environment", "`unset PREFECT_API_URL`"
    file = Path(
        os.environ.get("PREFECT_PROFILES_PATH") or prefect_home() / "profiles.toml"
    ).expanduser()
    if not file.exists():
        return "", "", ""
    profiles = tomllib.loads(file.read_text(encoding="utf-8"))
    name = os.environ.get("PREFECT_PROFILE") or profiles.get("active", "")
    address = profiles.get("profiles", {}).get(name, {}).get("PREFECT_API_URL", "")
    return address, f"profile {name} of Prefect", "`prefect config unset PREFECT_API_URL --yes`"


def check_mlflow() -> Iterator[Finding]:
    """MLflow's server or store."""
    for name in SERVERS[1:]:
        if os.environ.get(name):
            yield ask(name, os.environ[name], "environment", f"`unset {name}`")
    yield look_at_store(Path("mlflow.db"), "mlflow")


def ask(name: str, address: str, where: str, undo: str) -> Finding:
    """Say whether the server that is set answers."""
    why = servers.why_unreachable(address, PATIENCE)
    said = (
        f"set in {where}: {f'nothing answers at {address}: {why}' if why else f'{address} answers'}"
    )
    return Finding(name, said, f"start that server, or {undo}" if why else "")


def look_at_store(file: Path, package: str) -> Finding:
    """Say whether the installed package can read its database."""
    if not file.exists():
        return Finding(file.name, "none yet")
    aside = f"set it aside (mv {file} {file}.newer)"
    try:
        revision = (
            servers.find_newer_revision(file, package, BUSY)
            if version(package) != "is missing"
            else None
        )
    except sqlite3.OperationalError as error:
        return Finding(file.name, *servers.describe_unusable(str(file), error))
    except sqlite3.DatabaseError as error:
        return Finding(
            file.name, f"{file} cannot be read: {error}", f"bring back a copy, or {aside}"
        )
    if revision is None:
        return Finding(file.name, f"{file}, {file.stat().st_size / 1e6:.1f} MB")
    said = f"a newer {package} than {version(package)} wrote {file} (revision {revision})"
    return Finding(file.name, said, f"install the newer lock (git pull), or {aside}")


def check_ports() -> Iterator[Finding]:
    """The ports that `make` uses. Two look for a free one or take another; Prefect's has to be free or Prefect's."""
    for port, use in PORTS.items():
        try:
            servers.hold_port("127.0.0.1", port, "").close()
            yield Finding(f"port {port}", f"free ({use})")
        except UserError:
            foreign = (
                port == 4200
                and servers.fetch_text(f"http://127.0.0.1:{port}/api/health", PATIENCE) != "true"
            )
            said = f"taken by {servers.find_listener(port)} ({use})"
            yield Finding(
                f"port {port}",
                said,
                "end that: runs look for their server there" if foreign else "",
            )


CHECKS = (
    check_machine, check_packages, check_settings, check_git, check_params, check_prefect,
    check_prefect_settings, check_mlflow, check_ports,
)  # fmt: skip


def examine() -> list[Finding]:
    """Return what all checks found, side by side; one that fails or is too slow says so itself."""
    found: dict[Callable, list[Finding]] = {check: [] for check in CHECKS}
    threads = {
        check: threading.Thread(target=_examine, args=(check, found[check]), daemon=True)
        for check in CHECKS
    }
    for thread in threads.values():
        thread.start()
    deadline = time.monotonic() + SECONDS
    for check, thread in threads.items():
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            found[check] = [*found[check], too_slow(check)]
    return [finding for check in CHECKS for finding in found[check]]


def _examine(check: Callable[[], Iterator[Finding]], found: list[Finding]) -> None:
    try:
        for finding in check():
            found.append(finding)
    except Exception as error:  # the page is for broken machines: what breaks a check belongs on it
        found.append(
            Finding(
                title(check), f"{type(error).__name__}: {error}", "put this page into a bug report"
            )
        )


def too_slow(check: Callable) -> Finding:
    """Return the line of a check that did not end in time."""
    return Finding(title(check), f"not known within {SECONDS:.0f} s", known=False)


def title(check: Callable) -> str:
    """Return what a check looks at."""
    return check.__name__.removeprefix("check_").replace("_", " ")


def run(*command: str, seconds: float = 3.0) -> str:
    """Return what a command says in English, on whichever stream; "" where it says nothing."""
    english = os.environ | {"LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds,
            env=english,
        )
    except subprocess.TimeoutExpired:
        return f"{LATE} {seconds:.0f} s"
    return (done.stdout + done.stderr).strip()


def show(finding: Finding) -> str:
    """Return a line of the page, without secrets."""
    word = "wrong" if finding.remedy else "ok" if finding.known else "?"
    lines = [f"{word:<6} {finding.name:<20} {finding.said}"]
    lines += [f"{'':<6} → {finding.remedy}"] if finding.remedy else []
    home = os.path.expanduser("~")
    text = servers.mask_secrets("\n".join(lines))
    if home.rstrip("/") in ("", "~"):
        return text
    return re.sub(rf"(?<![\w.-]){re.escape(home.rstrip('/'))}(?![\w.-])", "~", text)


def main() -> None:
    """Print the page, and end with an error where something is wrong."""
    findings = examine()
    print("\n".join(map(show, findings)))
    wrong = sum(bool(finding.remedy) for finding in findings)
    print(f"\nwrong: {wrong}; the arrows say what to do" if wrong else "\nnothing is wrong")
    sys.stdout.flush()
    os._exit(1 if wrong else 0)  # a check that hangs is not waited for


if __name__ == "__main__":
    main()
