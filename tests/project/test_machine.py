"""What lies about on a machine changes no result and stops no run; it is told once, and the pipeline's own settings stay."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tasks import machine
from tests.support import ROOT

LIBRARIES = "{name.partition('.')[0] for name in sys.modules} & {'keras', 'matplotlib', 'mlflow', 'prefect', 'tensorflow', 'httpx'}"


def python(code: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in machine.OURS and name != machine.TOLD
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
    """An empty folder that is the current one and the home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("package", ["tasks", "flows", "serving", "tasks.stage"])
def test_settings_are_settled_before_any_library_is_there(package: str, folder: Path) -> None:
    """So no module of a package can import one first."""
    code = f"import sys, os, {package}; print({LIBRARIES}, os.environ['KERAS_BACKEND'], os.environ['MPLBACKEND'])"
    done = python(
        code, folder, KERAS_BACKEND="torch", MPLBACKEND="module://matplotlib_inline.backend_inline"
    )
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
def test_what_would_change_a_result_or_stop_a_run_is_dropped_and_named(
    name: str, value: str
) -> None:
    variables = {name: value}
    assert list(machine.settle(variables)) == [name]
    assert variables.get(name) == machine.OURS.get(name)


def test_a_model_leaves_the_settings_of_who_loads_it(folder: Path) -> None:
    """MLflow imports the code that lies in the model's folder into a process of somebody else."""
    shutil.copytree(
        ROOT / "tasks", folder / "model/code/tasks", ignore=shutil.ignore_patterns("__pycache__")
    )
    (folder / "model/MLmodel").touch()
    code = "import os; before = dict(os.environ); import tasks; print(os.environ == before, tasks.__file__)"
    theirs = {
        "MLFLOW_RUN_ID": "abc",
        "MPLBACKEND": "TkAgg",
        "PYTHONPATH": str(folder / "model/code"),
    }
    done = python(code, folder, **theirs)
    assert done.stdout.split() == ["True", str(folder / "model/code/tasks/__init__.py")]


def test_what_people_set_for_the_pipeline_stays(folder: Path) -> None:
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
    assert machine.settle(settled) == {}
    assert settled.items() >= (variables | {"LOG_LEVEL": "DEBUG"}).items()


def test_what_a_library_does_anyway_is_not_worth_a_word() -> None:
    assert (
        machine.settle(
            {"KERAS_BACKEND": "tensorflow", "MPLBACKEND": "Agg", "TF_ENABLE_ONEDNN_OPTS": "1"}
        )
        == {}
    )


def test_an_empty_address_is_no_address() -> None:
    variables = {"MLFLOW_TRACKING_URI": "", "PREFECT_API_URL": " "}
    assert machine.settle(variables) == {} and not {"MLFLOW_TRACKING_URI", "PREFECT_API_URL"} & set(
        variables
    )


def test_no_proxy_stands_between_this_machine_and_itself() -> None:
    variables = {"http_proxy": "http://127.0.0.1:9", "NO_PROXY": "corp.example, localhost"}
    machine.settle(variables)
    assert variables["NO_PROXY"] == variables["no_proxy"] == "corp.example,localhost,127.0.0.1,::1"
    every = {"http_proxy": "http://127.0.0.1:9", "NO_PROXY": "*"}
    machine.settle(every)
    assert every["NO_PROXY"] == every["no_proxy"] == "*"
    without: dict[str, str] = {}
    machine.settle(without)
    assert "NO_PROXY" not in without  # alone it would hide the proxies of the system's settings


@pytest.mark.parametrize(
    "text",
    ['{"image_data_format": "channels_first"}', '{"floatx": "float16", "epsilon": 1}', "[]", "{"],
)
def test_keras_reads_no_settings_of_the_user_and_finds_its_weights(text: str, folder: Path) -> None:
    (folder / ".keras/models").mkdir(parents=True)
    (folder / ".keras/keras.json").write_text(text)
    (folder / ".keras/models/vgg16.h5").write_text("weights")
    variables = {"HOME": str(folder)}
    assert "~/.keras/keras.json" in next(iter(machine.settle(variables)))
    home = Path(variables["KERAS_HOME"])
    assert (home / "models/vgg16.h5").read_text() == "weights" and not (
        home / "keras.json"
    ).exists()
    assert machine.settle(variables) == {}  # as a process that this one starts


def test_keras_own_file_is_left_alone(folder: Path) -> None:
    (folder / ".keras").mkdir()
    (folder / ".keras/keras.json").write_text(json.dumps(machine.KERAS))
    variables: dict[str, str] = {}
    assert machine.settle(variables) == {} and "KERAS_HOME" not in variables


def test_settings_are_told_once_a_run(folder: Path) -> None:
    """The stages of one `dvc repro` share a group of processes; what a flow starts inherits that it was told."""
    code = "from tasks import machine; machine.tell(print)"
    told = [python(code, folder, KERAS_MAX_EPOCHS="1").stdout for _ in range(2)]
    assert told == [
        "settings of this machine that do not count here:\n  KERAS_MAX_EPOCHS: params.yaml says how long to train\n",
        "",
    ]
    assert python(code, folder, KERAS_MAX_EPOCHS="1", MPLBACKEND="TkAgg").stdout.count("\n") == 3
    assert python(code, folder, KERAS_MAX_STEPS_PER_EPOCH="1", **{machine.TOLD: "1"}).stdout == ""


def test_warnings_of_libraries_are_no_errors(folder: Path) -> None:
    done = python(
        "import tasks, warnings; warnings.warn('old', DeprecationWarning); print('on')",
        folder,
        PYTHONWARNINGS="error",
    )
    assert done.stdout == "on\n"


def test_an_environment_whose_python_is_gone_is_set_up_again(folder: Path) -> None:
    """As after an upgrade of Python; a link to an environment of others is removed and what it points to stays."""
    (folder / "requirements.txt").touch()
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/python").symlink_to("/nowhere/python3.11")
    (folder / ".venv/installed").touch()
    command = ["make", "--dry-run", "--file", ROOT / "Makefile", "run"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert "rm -rf .venv\n" in done.stdout and "python -m flows.retrain" in done.stdout


def test_an_environment_is_not_set_up_by_its_own_python(folder: Path) -> None:
    """Not where it is on the path either, as of a shell in which it is active: the recipe removes it first."""
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
    (tmp_path / "old").mkdir()  # a system without `realpath`
    (tmp_path / "old/dirname").symlink_to(shutil.which("dirname"))
    old = {"PATH": str(tmp_path / "old")}
    done = subprocess.run(
        [f"{moved}/.venv/bin/short", "a"], capture_output=True, text=True, check=False, env=old
    )
    assert (done.stdout, done.stderr) == ("['a']\n", "")
