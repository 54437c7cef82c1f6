"""Settings of a machine change no result and stop no run. Those of the pipeline stay."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tasks import machine
from tests.support import ROOT

LIBRARIES = {"keras", "matplotlib", "mlflow", "prefect", "tensorflow", "httpx"}


def python(code: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in machine.OURS and name != machine.REPORTED
    }
    environment |= {"PYTHONPATH": str(ROOT), "HOME": str(folder)} | variables
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder that is the current folder and the home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("package", ["tasks", "flows", "serving", "tasks.stage"])
def test_settings_are_set_aside_before_any_library_is_imported(package: str, folder: Path) -> None:
    code = f"""
import sys, os, {package}
libraries = {{name.partition('.')[0] for name in sys.modules}} & {LIBRARIES}
print(libraries, os.environ['KERAS_BACKEND'], os.environ['MPLBACKEND'])
"""
    backend = "module://matplotlib_inline.backend_inline"
    done = python(code, folder, KERAS_BACKEND="torch", MPLBACKEND=backend)
    assert (done.stdout, done.stderr) == ("set() tensorflow agg\n", "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KERAS_BACKEND", "jax"),
        ("KERAS_MAX_EPOCHS", "1"),
        ("MPLBACKEND", "TkAgg"),
        ("MATPLOTLIBRC", "/etc/rc"),
        ("MLFLOW_RUN_ID", "abc"),
        ("PREFECT_RESULTS_PERSIST_BY_DEFAULT", "true"),
        ("PREFECT_TASK_DEFAULT_RETRIES", "3"),
        ("PREFECT_TASKS_DEFAULT_RETRIES", "3"),
        ("PREFECT_DEFAULT_RESULT_STORAGE_BLOCK", "s3/bucket"),
        ("PYTHONOPTIMIZE", "2"),
        ("TF_DETERMINISTIC_OPS", "1"),
        ("TF_ENABLE_ONEDNN_OPTS", "0"),
        ("ALL_PROXY", "socks5://127.0.0.1:1080"),
        ("http_proxy", "socks://127.0.0.1:1080/"),
        ("SSL_CERT_FILE", "/nowhere/ca.pem"),
        ("LOG_LEVEL", "verbose"),
        ("GIT_DIR", "/elsewhere/.git"),
    ],
)
def test_a_setting_that_changes_results_or_stops_runs_is_dropped(name: str, value: str) -> None:
    variables = {name: value}
    assert list(machine.set_aside(variables)) == [name]
    assert variables.get(name) == machine.OURS.get(name)


def test_a_registered_model_leaves_all_settings_alone(folder: Path) -> None:
    """MLflow imports the code of a model into a process of somebody else."""
    shutil.copytree(
        ROOT / "tasks", folder / "model/code/tasks", ignore=shutil.ignore_patterns("__pycache__")
    )
    (folder / "model/MLmodel").touch()
    code = """
import os; before = dict(os.environ)
import tasks; print(os.environ == before, tasks.__file__)
"""
    theirs = {
        "MLFLOW_RUN_ID": "abc",
        "MPLBACKEND": "TkAgg",
        "PYTHONPATH": str(folder / "model/code"),
    }
    done = python(code, folder, **theirs)
    assert done.stdout.split() == ["True", str(folder / "model/code/tasks/__init__.py")]


def test_settings_for_the_pipeline_stay(folder: Path) -> None:
    (folder / "ca.pem").touch()
    variables = {
        "MLFLOW_TRACKING_URI": "http://mlflow:5000",
        "MLFLOW_EXPERIMENT_NAME": "mine",
        "PREFECT_API_URL": "http://prefect:4200/api",
        "PREFECT_API_KEY": "secret",
        "SSL_CERT_FILE": str(folder / "ca.pem"),
        "CUDA_VISIBLE_DEVICES": "0",
        "OMP_NUM_THREADS": "2",
        "HTTPS_PROXY": "http://proxy:3128",
        "LOG_LEVEL": "debug",
        "PYTHONHASHSEED": "7",
        "PYTHONWARNINGS": "ignore",
    }
    settled = dict(variables)
    assert machine.set_aside(settled) == {}
    assert settled.items() >= (variables | {"LOG_LEVEL": "DEBUG"}).items()


def test_a_default_is_dropped_without_a_report() -> None:
    defaults = {"KERAS_BACKEND": "tensorflow", "MPLBACKEND": "Agg", "TF_ENABLE_ONEDNN_OPTS": "1"}
    assert machine.set_aside(defaults) == {}


def test_an_empty_address_is_no_address() -> None:
    variables = {"MLFLOW_TRACKING_URI": "", "PREFECT_API_URL": " "}
    assert machine.set_aside(variables) == {}
    assert not {"MLFLOW_TRACKING_URI", "PREFECT_API_URL"} & set(variables)


def test_loopback_addresses_need_no_proxy() -> None:
    variables = {"http_proxy": "http://127.0.0.1:9", "NO_PROXY": "corp.example, localhost"}
    machine.set_aside(variables)
    assert variables["NO_PROXY"] == variables["no_proxy"] == "corp.example,localhost,127.0.0.1,::1"
    every = {"http_proxy": "http://127.0.0.1:9", "NO_PROXY": "*"}
    machine.set_aside(every)
    assert every["NO_PROXY"] == every["no_proxy"] == "*"
    without: dict[str, str] = {}
    machine.set_aside(without)
    assert "NO_PROXY" not in without  # it would hide the system's settings


@pytest.mark.parametrize(
    "text",
    ['{"image_data_format": "channels_first"}', '{"floatx": "float16", "epsilon": 1}', "[]", "{"],
)
def test_keras_ignores_the_users_settings_and_finds_its_weights(text: str, folder: Path) -> None:
    (folder / ".keras/models").mkdir(parents=True)
    (folder / ".keras/keras.json").write_text(text)
    (folder / ".keras/models/vgg16.h5").write_text("weights")
    variables = {"HOME": str(folder)}
    assert "~/.keras/keras.json" in next(iter(machine.set_aside(variables)))
    home = Path(variables["KERAS_HOME"])
    assert (home / "models/vgg16.h5").read_text() == "weights"
    assert not (home / "keras.json").exists()
    assert machine.set_aside(variables) == {}  # in a child process


def test_keras_default_settings_need_no_other_folder(folder: Path) -> None:
    (folder / ".keras").mkdir()
    (folder / ".keras/keras.json").write_text(json.dumps(machine.KERAS))
    variables: dict[str, str] = {}
    assert machine.set_aside(variables) == {} and "KERAS_HOME" not in variables


def test_ignored_settings_are_reported_once_a_run(folder: Path) -> None:
    """The stages of one `dvc repro` share a process group, those of a flow a variable."""
    code = "from tasks import machine; machine.report_ignored(print)"
    first, second = (python(code, folder, KERAS_MAX_EPOCHS="1").stdout for _ in range(2))
    assert first.startswith("settings of this machine that are ignored here:\n")
    assert "\n  KERAS_MAX_EPOCHS: params.yaml sets how long to train\n" in first and not second
    assert python(code, folder, KERAS_MAX_EPOCHS="1", MPLBACKEND="TkAgg").stdout.count("\n") == 3
    reported = {machine.REPORTED: "1"}
    assert python(code, folder, KERAS_MAX_STEPS_PER_EPOCH="1", **reported).stdout == ""


def test_a_warning_of_a_library_is_no_error(folder: Path) -> None:
    done = python(
        "import tasks, warnings; warnings.warn('old', DeprecationWarning); print('on')",
        folder,
        PYTHONWARNINGS="error",
    )
    assert done.stdout == "on\n"


NOISY = """
import os
os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to ")
os.write(2, b"STDERR\\nI0000 00:00:1.5   9 cudart_stub.cc:31] Could not find cuda drivers\\n")
os.write(2, b"E0000 00:00:1.5   9 real.cc:1] out of memory\\n")
END
"""


@pytest.mark.parametrize(("end", "status"), [("", 0), ("os.abort()", -6)])
def test_tensorflow_is_imported_without_noise_and_with_its_errors(
    end: str, status: int, folder: Path
) -> None:
    """The errors appear even if the import ends the process."""
    (folder / "tensorflow.py").write_text(NOISY.replace("END", end))
    path = os.pathsep.join([str(folder), str(ROOT)])
    done = python(
        "import tasks, tensorflow, os; os.write(2, b'I0000 12:00:00 1 own')",
        folder,
        PYTHONPATH=path,
    )
    assert done.returncode == status
    error, after = done.stderr.split("\n", 1)
    assert error == "E0000 00:00:1.5   9 real.cc:1] out of memory"
    assert after == ("" if status else "I0000 12:00:00 1 own")


def test_an_environment_whose_python_is_gone_is_set_up_again(folder: Path) -> None:
    """Python may have been upgraded. If .venv is a link, only the link is removed."""
    (folder / "requirements.txt").touch()
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/python").symlink_to("/nowhere/python3.11")
    (folder / ".venv/installed").touch()
    command = ["make", "--dry-run", "--file", ROOT / "Makefile", "run"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert "rm -rf .venv\n" in done.stdout and "python -m flows.retrain" in done.stdout


def test_an_environment_is_not_set_up_by_its_own_python(folder: Path) -> None:
    """Not even if it is first on the path, as in a shell where it is active."""
    shutil.copy(ROOT / "Makefile", folder)
    for name in (".venv/bin", "system"):
        (folder / name).mkdir(parents=True)
        (folder / name / "python3.11").write_text("#!/bin/sh\n")
        (folder / name / "python3.11").chmod(0o755)
    (folder / "requirements.txt").touch()
    path = f"{folder}/.venv/bin:{folder}/system:{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON"} | {
        "PATH": path
    }
    done = subprocess.run(
        ["make", "--dry-run", "run"], env=environment, capture_output=True, text=True, check=True
    )
    assert (
        "system/python3.11 -m venv .venv\n" in done.stdout
        and ".venv/bin/python3.11" not in done.stdout
    )


@pytest.mark.slow
def test_a_matplotlibrc_changes_no_figure(folder: Path) -> None:
    (folder / "matplotlibrc").write_text(
        "lines.linewidth: 9\naxes.facecolor: red\nbackend: TkAgg\n"
    )
    compared = "m.rcParams | {'backend': 0} == m.rcParamsDefault | {'backend': 0}, m.get_backend()"
    code = f"import tasks.scoring.figures, matplotlib as m; print({compared})"
    assert python(code, folder).stdout == "True agg\n"


def test_an_environment_moves_with_its_project(tmp_path: Path) -> None:
    scripts = tmp_path / "before" / ".venv/bin"
    scripts.mkdir(parents=True)
    (scripts / "python").symlink_to(sys.executable)
    (scripts / "activate").write_text(
        f'    VIRTUAL_ENV="{scripts.parent}"\nPATH="$VIRTUAL_ENV/bin:$PATH"\n'
    )
    for name, first in {
        "short": f"#!{scripts}/python",
        "long": f"#!/bin/sh\n'''exec' \"{scripts}/python\" \"$0\" \"$@\"\n' '''",
    }.items():
        (scripts / name).write_text(f"{first}\nimport sys\nprint(sys.argv[1:])\n")
        (scripts / name).chmod(0o755)
    subprocess.run(
        ["make", "--silent", "--file", ROOT / "Makefile", "relocatable"],
        cwd=tmp_path / "before",
        check=True,
    )
    (tmp_path / "before").rename(tmp_path / "after (50%) #1")
    command = 'source "$1"/.venv/bin/activate && short "a b" && long c && which short'
    moved = str(tmp_path / "after (50%) #1")
    told = subprocess.run(
        ["bash", "-c", command, "bash", moved], capture_output=True, text=True, check=True
    ).stdout
    assert told.splitlines() == ["['a b']", "['c']", f"{moved}/.venv/bin/short"]
    (tmp_path / "old").mkdir()  # a system without realpath
    (tmp_path / "old/dirname").symlink_to(shutil.which("dirname"))
    old = {"PATH": str(tmp_path / "old")}
    done = subprocess.run(
        [f"{moved}/.venv/bin/short", "a"], capture_output=True, text=True, check=False, env=old
    )
    assert (done.stdout, done.stderr) == ("['a']\n", "")
