"""What lies about on a machine and would change a result or stop a run, set aside before a library reads it.

`tasks/__init__.py` imports this first, so it needs nothing but Python. Certificates, keys and the settings of CUDA and BLAS
stay, and so does what people set for this pipeline, such as `MLFLOW_TRACKING_URI` and `PREFECT_API_URL`. A process that
this one starts inherits what is left, so each setting is told once a run.
"""

import json
import os
import sys
import warnings
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

# A variable, or a pattern of names -> why it is dropped.
DROPPED = {
    "GIT_DIR": "Git and DVC would work on another repository",
    "GIT_INDEX_FILE": "Git and DVC would work on another repository",
    "GIT_WORK_TREE": "Git and DVC would work on another repository",
    "KERAS_BACKEND": "the networks are TensorFlow's",
    "KERAS_MAX_*": "params.yaml says how long to train",
    "KERAS_NNX_ENABLED": "the networks are TensorFlow's",
    "MATPLOTLIBRC": "figures have the pipeline's own style",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "a run would end before all of it is written",
    "MLFLOW_EXPERIMENT_ID": "MLFLOW_EXPERIMENT_NAME says which experiment",
    "MLFLOW_RUN_ID": "each training has a run of its own",
    "MPLBACKEND": "figures are files and need no screen or notebook",
    "PREFECT_*DEFAULT_RESULT_STORAGE_BLOCK": "results lie in DVC's cache",
    "PREFECT_*TEST_MODE": "runs would be recorded nowhere",
    "PREFECT_FLOW*_DEFAULT_*": "each stage has its own retries",
    "PREFECT_RESULTS_*": "results lie in DVC's cache",
    "PREFECT_TASK*_DEFAULT_*": "each stage has its own retries",
    "PREFECT_TASKS_REFRESH_CACHE": "DVC says what is stale",
    "PYTHONHOME": "the pipeline's own Python is used",
    "PYTHONINSPECT": "a stage would wait at a prompt",
    "PYTHONOPTIMIZE": "libraries lose checks and texts that they use",
    "TF_DETERMINISTIC_OPS": "other operations give other models",
    "TF_CUDNN_DETERMINISTIC": "other operations give other models",
    "TF_ENABLE_AUTO_MIXED_PRECISION*": "other precision gives other models",
    "TF_ENABLE_ONEDNN_OPTS": "other operations give other models",
    "TF_USE_LEGACY_KERAS": "the models are of Keras 3",
    "TF_XLA_FLAGS": "other operations give other models",
}
OURS = {"KERAS_BACKEND": "tensorflow", "MPLBACKEND": "agg"}
OFF = ("", "0", "false", "no", "off")
HARMLESS = {
    "KERAS_BACKEND": ("tensorflow",),
    "MPLBACKEND": ("agg",),
    "TF_ENABLE_ONEDNN_OPTS": ("1",),
}  # others: `OFF`
# No library reports home, fills the terminal, or waits four minutes for a server; who says otherwise goes first.
QUIET = {
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
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
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
SCRATCH = Path(".cache")
TOLD = "PIPELINE_SETTINGS_TOLD"  # set for the processes that this one starts


def settle(variables: MutableMapping[str, str]) -> dict[str, str]:
    """Set aside what does not belong in a run; return the name of each setting and why. Values may be secret."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "PREFECT_API_URL"):
        if not variables.get(name, " ").strip():
            variables.pop(name, None)  # an empty line of an .env file sets nothing
    found: dict[str, str] = {}
    for part in (
        drop,
        drop_errors,
        drop_socks,
        drop_lost_certificates,
        name_level,
        leave_keras_file,
        matplotlib_files,
    ):
        found |= part(variables)
    spare_loopback(variables)
    variables.update(OURS)
    for name, value in (
        QUIET | {"TQDM_DISABLE": "" if sys.stderr and sys.stderr.isatty() else "1"}
    ).items():
        variables.setdefault(name, value)
    return found


def drop(variables: MutableMapping[str, str]) -> dict[str, str]:
    """Drop what `DROPPED` names."""
    found = {}
    for name in sorted(variables):
        why = next((why for pattern, why in DROPPED.items() if fnmatchcase(name, pattern)), None)
        if why is not None:
            value = variables.pop(name)
            if value.lower() not in HARMLESS.get(name, OFF):
                found[name] = why
    return found


def drop_errors(variables: MutableMapping[str, str]) -> dict[str, str]:
    """Drop a PYTHONWARNINGS that makes errors of warnings, here too, where Python has read it already."""
    rules = [
        rule.partition(":")[0].strip() for rule in variables.get("PYTHONWARNINGS", "").split(",")
    ]
    if not any(action and "error".startswith(action) for action in rules):
        return {}
    del variables["PYTHONWARNINGS"]
    warnings.filters[:] = [rule for rule in warnings.filters if rule[0] != "error"]
    sys.warnoptions.clear()
    return {"PYTHONWARNINGS": "a warning of a library would end the run"}


def drop_socks(variables: MutableMapping[str, str]) -> dict[str, str]:
    """Drop proxies of a kind that no library here speaks: Prefect's client would fail before it asks any server."""
    found = {}
    for name in both_cases(PROXIES):
        value = variables.get(name, "")
        if "://" in value and not value.lower().startswith(("http://", "https://")):
            del variables[name]
            found[name] = (
                f"{value.partition('://')[0]}:// proxies are not supported, only http:// and https://"
            )
    return found


def spare_loopback(variables: MutableMapping[str, str]) -> None:
    """Have no proxy stand between this machine and itself, where a run's own server is."""
    if not any(variables.get(name) for name in both_cases(PROXIES)):
        return  # a variable alone would hide what the system's settings say
    hosts = [
        host.strip()
        for name in both_cases(("NO_PROXY",))
        for host in variables.get(name, "").split(",")
    ]
    spared = ",".join(dict.fromkeys(host for host in [*hosts, *LOOPBACK] if host))
    if "*" in hosts:
        spared = "*"  # all hosts, and only where it stands alone
    variables.update(dict.fromkeys(both_cases(("NO_PROXY",)), spared))


def drop_lost_certificates(variables: MutableMapping[str, str]) -> dict[str, str]:
    """Drop variables that name a file of certificates which is not there: no server could be asked at all."""
    lost = [
        name for name in CERTIFICATES if variables.get(name) and not Path(variables[name]).exists()
    ]
    return {name: f"{variables.pop(name)} does not exist" for name in lost}


def name_level(variables: MutableMapping[str, str]) -> dict[str, str]:
    """Write the levels of logs as Python does; drop those that it or Prefect does not know."""
    found = {}
    for name in ("LOG_LEVEL", "PREFECT_LOGGING_LEVEL"):
        level = variables.pop(name, "").strip().upper()
        level = {"WARN": "WARNING", "FATAL": "CRITICAL"}.get(level, level)
        if level in LEVELS:
            variables[name] = level
        elif level:
            found[name] = f"expected one of {', '.join(LEVELS)}"
    return found


def leave_keras_file(variables: MutableMapping[str, str]) -> dict[str, str]:
    """Give Keras a folder without the settings in keras.json; the weights that it downloaded stay where they are."""
    home = Path(variables.get("KERAS_HOME") or "~/.keras").expanduser()
    others = keras_differences(home / "keras.json")
    if not others:
        return {}
    private = SCRATCH.absolute() / "keras" / home.as_posix().strip("/").replace("/", "-")[-100:]
    with suppress(OSError):
        (home / "models").mkdir(exist_ok=True)
    with suppress(OSError):
        private.mkdir(parents=True, exist_ok=True)
        (private / "models").symlink_to(home.absolute() / "models")
    variables["KERAS_HOME"] = str(private)
    return {
        f"{shown(home / 'keras.json')}: {', '.join(others)}": "the models have the pipeline's own settings"
    }


def keras_differences(file: Path) -> list[str]:
    """Return the settings of a keras.json that are not Keras's own, or what is wrong with the file."""
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        return [name for name, value in settings.items() if value and value != KERAS.get(name)]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, AttributeError):
        return ["it cannot be read"]


def matplotlib_files(variables: MutableMapping[str, str]) -> dict[str, str]:
    """Name the files that matplotlib reads its defaults from; `tasks/scoring/figures.py` undoes what they say."""
    config = Path(variables.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "matplotlib"
    folders = [
        Path(),
        Path(variables.get("MPLCONFIGDIR") or config),
        Path("~/.matplotlib").expanduser(),
    ]
    files = [folder / "matplotlibrc" for folder in folders]
    return {shown(file): DROPPED["MATPLOTLIBRC"] for file in files if file.is_file()}


def tell(say: Callable[[str], None]) -> None:
    """Say once a run what was set aside here."""
    names = "".join(f"\n  {name}: {why}" for name, why in SET_ASIDE.items())
    if names and TOLD not in os.environ and not _told_before(names):
        say(f"settings of this machine that do not count here:{names}")
    os.environ[TOLD] = "1"


def shown(path: Path) -> str:
    """Return a path with the home folder as ~."""
    home = os.path.expanduser("~")
    return (
        f"~{str(path)[len(home) :]}"
        if home != "~" and str(path).startswith(f"{home}{os.sep}")
        else str(path)
    )


def _told_before(names: str) -> bool:
    """Say whether another stage of this `dvc repro` told the same: they share a group of processes."""
    note = SCRATCH / "settings_told"
    text = f"{os.getpgrp()}{names}"
    with suppress(OSError):
        if note.exists() and note.read_text(encoding="utf-8") == text:
            return True
        SCRATCH.mkdir(exist_ok=True)
        note.write_text(text, encoding="utf-8")
    return False


def both_cases(names: tuple[str, ...]) -> list[str]:
    """Return the names of variables in capitals and in small letters, as programs read them."""
    return [case for name in names for case in (name, name.lower())]


def lies_in_a_model() -> bool:
    """Say whether this is the code that a model brings along: the process is somebody else's, whose settings stay."""
    return Path(__file__).absolute().parents[2].joinpath("MLmodel").is_file()


SET_ASIDE = {} if lies_in_a_model() else settle(os.environ)
