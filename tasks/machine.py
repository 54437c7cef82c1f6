"""Ignore settings of the machine that would change a result or stop a run.

`tasks/__init__.py` imports this module first, before a library reads its settings. So this module
imports only the standard library. Certificates, keys and the settings of CUDA and BLAS stay, and so
do settings for this pipeline, such as `MLFLOW_TRACKING_URI` and `PREFECT_API_URL`. Child processes
inherit the remaining settings, so a run reports each ignored setting once.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType

STARTED = time.monotonic()  # about when the process started

# Variable, or a pattern of names -> why it is dropped.
DROPPED = {
    "GIT_DIR": "Git and DVC would work on another repository",
    "GIT_INDEX_FILE": "Git and DVC would work on another repository",
    "GIT_WORK_TREE": "Git and DVC would work on another repository",
    "KERAS_BACKEND": "the networks use TensorFlow",
    "KERAS_MAX_*": "params.yaml sets how long to train",
    "KERAS_NNX_ENABLED": "the networks use TensorFlow",
    "MATPLOTLIBRC": "figures have a style of their own",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "a run would end before everything is written",
    "MLFLOW_EXPERIMENT_ID": "MLFLOW_EXPERIMENT_NAME sets the experiment",
    "MLFLOW_RUN_ID": "each training has its own run",
    "MPLBACKEND": "figures are files and need no screen or notebook",
    "PREFECT_*DEFAULT_RESULT_STORAGE_BLOCK": "results are in DVC's cache",
    "PREFECT_*TEST_MODE": "no run would be recorded",
    "PREFECT_FLOW*_DEFAULT_*": "each stage sets its own retries",
    "PREFECT_RESULTS_*": "results are in DVC's cache",
    "PREFECT_TASK*_DEFAULT_*": "each stage sets its own retries",
    "PREFECT_TASKS_REFRESH_CACHE": "DVC decides what is stale",
    "PYTHONHOME": "the pipeline's own Python is used",
    "PYTHONINSPECT": "a stage would wait at a prompt",
    "PYTHONOPTIMIZE": "libraries would lose checks and texts that they use",
    "TF_DETERMINISTIC_OPS": "other operations give another model",
    "TF_CUDNN_DETERMINISTIC": "other operations give another model",
    "TF_ENABLE_AUTO_MIXED_PRECISION*": "another precision gives another model",
    "TF_ENABLE_ONEDNN_OPTS": "other operations give another model",
    "TF_USE_LEGACY_KERAS": "the models need Keras 3",
    "TF_XLA_FLAGS": "other operations give another model",
}
OURS = {"KERAS_BACKEND": "tensorflow", "MPLBACKEND": "agg"}
OFF = ("", "0", "false", "no", "off")
# Values that change nothing: dropping them is not reported. For other variables, see `OFF`.
HARMLESS = {
    "KERAS_BACKEND": ("tensorflow",),
    "MPLBACKEND": ("agg",),
    "TF_ENABLE_ONEDNN_OPTS": ("1",),
}
# Defaults, so that no library reports home, fills the terminal or waits four minutes for a server.
QUIET = {
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
CERTIFICATES = (
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "AWS_CA_BUNDLE",
)
KERAS = {
    "floatx": "float32",
    "epsilon": 1e-07,
    "backend": "tensorflow",
    "image_data_format": "channels_last",
}
# Lines of TensorFlow's C++ libraries while it is imported: messages of level INFO, and two others
# that report no error.
NOISE = (
    "^WARNING: All log messages before absl::InitializeLog|^I[0-9]{4} [0-9:.]+ +[0-9]+ "
    "|Unable to register cu(BLAS|DNN|FFT) factory|^I[0-9]{4} [0-9:.]+: I "
)
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
SCRATCH = Path(".cache")
REPORTED = "PIPELINE_SETTINGS_TOLD"  # set for child processes


def set_aside(variables: MutableMapping[str, str]) -> dict[str, str]:
    """Remove settings that do not belong in a run; return {name: reason}.

    No value is returned, because it may be secret.
    """
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "PREFECT_API_URL"):
        if not variables.get(name, " ").strip():
            variables.pop(name, None)  # an empty line of an .env file sets nothing
    found: dict[str, str] = {}
    for step in (
        drop_listed,
        drop_errors,
        drop_socks,
        drop_lost_certificates,
        normalise_levels,
        bypass_keras_file,
        list_matplotlib_files,
    ):
        found |= step(variables)
    exempt_loopback(variables)
    variables.update(OURS)
    at_terminal = sys.stderr and sys.stderr.isatty()
    for name, value in (QUIET | {"TQDM_DISABLE": "" if at_terminal else "1"}).items():
        variables.setdefault(name, value)
    return found


def drop_listed(variables: MutableMapping[str, str]) -> dict[str, str]:
    """Drop the variables listed in `DROPPED`."""
    found = {}
    for name in sorted(variables):
        why = next((why for pattern, why in DROPPED.items() if fnmatchcase(name, pattern)), None)
        if why is not None:
            value = variables.pop(name)
            if value.lower() not in HARMLESS.get(name, OFF):
                found[name] = why
    return found


def drop_errors(variables: MutableMapping[str, str]) -> dict[str, str]:
    """Drop a PYTHONWARNINGS that turns warnings into errors, and undo its effect here."""
    rules = [
        rule.partition(":")[0].strip() for rule in variables.get("PYTHONWARNINGS", "").split(",")
    ]
    if not any(action and "error".startswith(action) for action in rules):
        return {}
    del variables["PYTHONWARNINGS"]
    kept = [rule for rule in warnings.filters if rule[0] != "error"]
    warnings.filters[:] = kept  # type: ignore[index]  # a list, which typeshed calls a Sequence
    sys.warnoptions.clear()
    return {"PYTHONWARNINGS": "a warning of a library would end the run"}


def drop_socks(variables: MutableMapping[str, str]) -> dict[str, str]:
    """Drop SOCKS proxies: Prefect's client does not support them and would fail at once."""
    found = {}
    for name in list_both_cases(PROXIES):
        value = variables.get(name, "")
        if "://" in value and not value.lower().startswith(("http://", "https://")):
            del variables[name]
            scheme = value.partition("://")[0]
            found[name] = f"{scheme}:// proxies are not supported, only http:// and https://"
    return found


def exempt_loopback(variables: MutableMapping[str, str]) -> None:
    """Exempt this machine's own addresses from proxies: a run's own server is there."""
    if not any(variables.get(name) for name in list_both_cases(PROXIES)):
        return  # NO_PROXY without a proxy would hide the system's settings
    hosts = [
        host.strip()
        for name in list_both_cases(("NO_PROXY",))
        for host in variables.get(name, "").split(",")
    ]
    spared = ",".join(dict.fromkeys(host for host in [*hosts, *LOOPBACK] if host))
    if "*" in hosts:
        spared = "*"  # means all hosts, but only on its own
    variables.update(dict.fromkeys(list_both_cases(("NO_PROXY",)), spared))


def drop_lost_certificates(variables: MutableMapping[str, str]) -> dict[str, str]:
    """Drop variables that name a missing file of certificates: no server could be reached."""
    lost = [
        name for name in CERTIFICATES if variables.get(name) and not Path(variables[name]).exists()
    ]
    return {name: f"{variables.pop(name)} does not exist" for name in lost}


def normalise_levels(variables: MutableMapping[str, str]) -> dict[str, str]:
    """Write log levels as Python does; drop those that Python or Prefect does not know."""
    found = {}
    for name in ("LOG_LEVEL", "PREFECT_LOGGING_LEVEL"):
        level = variables.pop(name, "").strip().upper()
        level = {"WARN": "WARNING", "FATAL": "CRITICAL"}.get(level, level)
        if level in LEVELS:
            variables[name] = level
        elif level:
            found[name] = f"expected one of {', '.join(LEVELS)}"
    return found


def bypass_keras_file(variables: MutableMapping[str, str]) -> dict[str, str]:
    """Give Keras a folder without the settings of keras.json, linked to its downloaded weights."""
    home = Path(variables.get("KERAS_HOME") or "~/.keras").expanduser()
    others = list_keras_differences(home / "keras.json")
    if not others:
        return {}
    private = SCRATCH.absolute() / "keras" / home.as_posix().strip("/").replace("/", "-")[-100:]
    with suppress(OSError):
        (home / "models").mkdir(exist_ok=True)
    with suppress(OSError):
        private.mkdir(parents=True, exist_ok=True)
        (private / "models").symlink_to(home.absolute() / "models")
    variables["KERAS_HOME"] = str(private)
    name = f"{shorten_home(home / 'keras.json')}: {', '.join(others)}"
    return {name: "the pipeline has its own settings"}


def list_keras_differences(file: Path) -> list[str]:
    """Return the settings of a keras.json that differ from Keras's defaults."""
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        return [name for name, value in settings.items() if value and value != KERAS.get(name)]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, AttributeError):
        return ["it cannot be read"]


def list_matplotlib_files(variables: MutableMapping[str, str]) -> dict[str, str]:
    """Name matplotlib's settings files, which `tasks/scoring/figures.py` undoes."""
    config = Path(variables.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "matplotlib"
    folders = [
        Path(),
        Path(variables.get("MPLCONFIGDIR") or config),
        Path("~/.matplotlib").expanduser(),
    ]
    files = [folder / "matplotlibrc" for folder in folders]
    return {shorten_home(file): DROPPED["MATPLOTLIBRC"] for file in files if file.is_file()}


def report_ignored(log: Callable[[str], None]) -> None:
    """Log the ignored settings, once in each run."""
    names = "".join(f"\n  {name}: {why}" for name, why in SET_ASIDE.items())
    if names and REPORTED not in os.environ and not _is_reported(names):
        log(f"settings of this machine that are ignored here:{names}")
    os.environ[REPORTED] = "1"


def shorten_home(path: Path) -> str:
    """Return a path with the home folder as ~."""
    home = os.path.expanduser("~")  # noqa: PTH111  # Path.expanduser fails without a home
    inside = home != "~" and str(path).startswith(f"{home}{os.sep}")
    return f"~{str(path)[len(home) :]}" if inside else str(path)


def list_both_cases(names: tuple[str, ...]) -> list[str]:
    """Return the names of variables in upper and in lower case: programs read either."""
    return [case for name in names for case in (name, name.lower())]


def _is_reported(names: str) -> bool:
    """Return whether another stage of this `dvc repro` has reported the same settings.

    The stages of one `dvc repro` share a process group.
    """
    note = SCRATCH / "settings_told"
    text = f"{os.getpgrp()}{names}"
    with suppress(OSError):
        if note.exists() and note.read_text(encoding="utf-8") == text:
            return True
        SCRATCH.mkdir(exist_ok=True)
        note.write_text(text, encoding="utf-8")
    return False


def _is_code_of_a_model() -> bool:
    """Return whether this is the copy of the code that a registered model brings along.

    Then the process is somebody else's, and its settings stay.
    """
    return Path(__file__).absolute().parents[2].joinpath("MLmodel").is_file()


class QuietTensorFlow(importlib.abc.MetaPathFinder):
    """Import TensorFlow without the lines that mean nothing to a user."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find TensorFlow, and have it loaded while the lines in `NOISE` are dropped."""
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_quietly(module: ModuleType) -> None:
                with drop_lines(NOISE):
                    execute(module)

            setattr(spec.loader, "exec_module", execute_quietly)  # noqa: B010  # mypy forbids a plain assignment
        return spec


@contextmanager
def drop_lines(pattern: str) -> Iterator[None]:
    """Drop the lines on stderr that match, also those of C++ libraries. All others appear.

    `grep` filters them in its own process. So lines appear even if this process is killed.
    """
    import subprocess  # only a process that imports TensorFlow needs it

    try:
        terminal = os.dup(2)
        grep = subprocess.Popen(
            ["grep", "-avE", pattern],
            stdin=subprocess.PIPE,
            stdout=terminal,
            start_new_session=True,
        )
    except OSError:  # without stderr or grep nothing is dropped
        yield
        return
    assert grep.stdin is not None
    os.dup2(grep.stdin.fileno(), 2)
    grep.stdin.close()
    try:
        yield
    finally:
        if sys.stderr:
            sys.stderr.flush()
        os.dup2(terminal, 2)
        os.close(terminal)
        with suppress(subprocess.TimeoutExpired):
            grep.wait(timeout=5)  # longer only if a child process still has the pipe


SET_ASIDE: dict[str, str] = {}
if not _is_code_of_a_model():
    SET_ASIDE = set_aside(os.environ)
    sys.meta_path.insert(0, QuietTensorFlow())
    # It warns, for example, if one process predicts with several models.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
