"""`dvc.yaml` declares exactly the files and params that each stage reads.

A missing dependency leaves stale results, a superfluous one trains for nothing. The code is parsed
with `ast`, so no stage runs.
"""

import ast
import itertools
import re
import subprocess
import warnings
from collections.abc import Callable
from inspect import Parameter, Signature
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from tasks.errors import UserError
from tasks.params.whole import Params
from tasks.results import TIMING
from tasks.stage import read_arguments
from tests.support import ROOT
from tests.support.dependencies import code_of, imports, parse, python_files

STAGES = YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")["stages"]
IN_GIT = {"data/promotions.jsonl"}  # a stage appends to it, so DVC must not empty it
READERS = {
    "read_architecture": "architectures",
    "read_architectures": "architectures",
    "read_ensembles": "ensembles",
}
# Modules that may read all of params.yaml. In a stage, each key would be a dependency.
WHOLE = {
    "tasks/assessment/assess.py",
    "tasks/params/__main__.py",
    "tasks/registry/load.py",
    "tasks/stage.py",
    "tasks/tuning/search.py",
    "tasks/tuning/speed.py",
    "tasks/tuning/trials.py",
    "tasks/tuning/write_back.py",
}


def body(stage: str) -> dict:
    return STAGES[stage].get("do", STAGES[stage])


def names(entries: list) -> list[str]:
    """Return the names of deps, outs, metrics or plots, whether or not they have settings."""
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]


def outputs(stage: str) -> list[str]:
    return [
        name for kind in ("outs", "metrics", "plots") for name in names(body(stage).get(kind, []))
    ]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_rooms_and_schemas_that_it_imports(stage: str) -> None:
    assert [dep for dep in names(body(stage)["deps"]) if dep.startswith("tasks")] == code_of(stage)


def test_only_registering_reaches_the_registry() -> None:
    assert [stage for stage in STAGES if "tasks/registry" in code_of(stage)] == ["register"]


def test_training_depends_on_no_room_that_scores_or_reports() -> None:
    assert not {
        "tasks/scoring",
        "tasks/reporting",
        "tasks/registry",
        "tasks/inference",
        "tasks/quality",
    } & set(code_of("train"))


def test_packages_hold_no_code_that_decides_results() -> None:
    """No stage depends on an `__init__.py`, so it may only import `tasks.machine`."""
    for path in python_files("tasks") + python_files("serving") + python_files("flows"):
        if path.name == "__init__.py":
            assert imports(path) <= {"tasks", "tasks.machine"}
            assert not [
                node
                for node in ast.walk(parse(path))
                if isinstance(node, ast.FunctionDef | ast.ClassDef)
            ]


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_listed_once_and_in_order(stage: str) -> None:
    deps = names(body(stage)["deps"])
    assert deps == sorted(set(deps))


def sections_read(stage: str) -> set[str]:
    """Return the sections of params that a stage reads by `read_section` and the like."""
    calls = [
        node for node in ast.walk(parse(Path(f"tasks/{stage}.py"))) if isinstance(node, ast.Call)
    ]
    found = set()
    for call in calls:
        called = getattr(call.func, "id", "")
        if called == "read_section":
            found.add(call.args[0].value)
        elif called in READERS:
            found.add(READERS[called])
    return found | (
        {"train"} if "architectures" in found else set()
    )  # the defaults of architectures


@pytest.mark.parametrize("stage", STAGES)
def test_the_params_of_a_stage_are_the_sections_it_reads(stage: str) -> None:
    assert {name.split(".")[0] for name in body(stage).get("params", [])} == sections_read(stage)


def test_only_a_stage_itself_reads_params() -> None:
    """The check above does not look into the modules that a stage imports."""
    stages = {f"tasks/{stage}.py" for stage in STAGES}
    readers = {
        "tasks.params.read.read_section",
        "tasks.params.ensembles.read_ensembles",
        "tasks.params.read_architectures.read_architecture",
        "tasks.params.read_architectures.read_architectures",
    }
    for path in python_files("tasks"):
        if path.parent != Path("tasks/params"):
            assert str(path) in stages or not readers & imports(path), path
        assert str(path) in WHOLE or "tasks.params.whole" not in imports(path), path


def test_training_one_architecture_reads_only_its_section() -> None:
    assert set(body("train")["params"]) == {"architectures.${key}", "train"}
    assert set(body("compare")["params"]) >= {"architectures"}
    assert STAGES["train"]["foreach"] == STAGES["evaluate"]["foreach"] == "${architectures}"


def arguments(stage: str) -> dict[str, object]:
    """Return the options in a stage's command, read as the stage reads them."""
    _, _, called, *words = body(stage)["cmd"].replace("${key}", "cnn_a").split()
    assert called == f"tasks.{stage}"
    return read_arguments(signature(stage), words)


def signature(stage: str) -> Callable[..., None]:
    """Return a function with the options of a stage's `main`, without importing the stage."""
    defined = {getattr(node, "name", ""): node for node in parse(Path(f"tasks/{stage}.py")).body}
    options = {a.arg: a.annotation.id for a in defined["main"].args.args}
    if len(options) == 1 and (fields := defined.get(*options.values())):
        options = {field.target.id: field.annotation.id for field in fields.body[1:]}
    kinds = {"Path": Path, "str": str}
    parameters = [
        Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, annotation=kinds[kind])
        for name, kind in options.items()
    ]

    def stand_in() -> None:
        """Stand in for `main`."""

    stand_in.__signature__ = Signature(parameters)
    return stand_in


@pytest.mark.parametrize("stage", STAGES)
def test_a_command_has_exactly_the_declared_paths(stage: str) -> None:
    given = {str(value) for value in arguments(stage).values() if isinstance(value, Path)} - IN_GIT
    data = {
        name.replace("${key}", "cnn_a")
        for name in names(body(stage)["deps"]) + outputs(stage)
        if name.startswith("data/")
    }
    for path in given:
        assert any(name == path or name.startswith(f"{path}/") for name in data), path
    for name in data:
        assert any(name == path or name.startswith(f"{path}/") for path in given), name


@pytest.mark.parametrize("stage", STAGES)
def test_two_swapped_paths_of_a_command_are_an_error(stage: str) -> None:
    given = [(name, value) for name, value in arguments(stage).items() if isinstance(value, Path)]
    others = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in arguments(stage).items()
        if not isinstance(value, Path)
    ]
    for (one, first), (other, second) in itertools.combinations(given, 2):
        swapped = dict(given) | {one: second, other: first}
        words = [f"--{name.replace('_', '-')}={value}" for name, value in swapped.items()]
        with pytest.raises(UserError, match="expected a path named like the option"):
            read_arguments(signature(stage), [*others, *words])


def test_every_output_has_one_writer_and_every_input_comes_from_somewhere() -> None:
    written = [name for stage in STAGES for name in outputs(stage)]
    assert len(written) == len(set(written))
    for stage in STAGES:
        for name in names(body(stage)["deps"]):
            if name.startswith("data/") and name != "data/raw":
                assert any(
                    f"{one}/".startswith(f"{name}/") or name.startswith(f"{one}/")
                    for one in written
                ), f"{stage}: {name}"


def test_no_stage_writes_into_what_it_reads() -> None:
    for stage in STAGES:
        for out in outputs(stage):
            assert not any(
                out == dep or out.startswith(f"{dep}/") for dep in names(body(stage)["deps"])
            ), f"{stage}: {out}"


def test_dvc_does_not_track_times() -> None:
    """Times differ from run to run, so a model would be trained again for them."""
    tracked = {path for stage in STAGES for path in [*outputs(stage), *names(body(stage)["deps"])]}
    for path in tracked:
        assert not TIMING.is_relative_to(path) and not Path(path).is_relative_to(TIMING), path
    ignored = subprocess.run(["git", "check-ignore", "--quiet", TIMING], cwd=ROOT, check=False)
    assert ignored.returncode == 0


def test_registering_is_not_replayed_from_the_cache() -> None:
    assert {"data/registration.json": {"cache": False}} in body("register")["outs"]


def test_git_ignores_every_output() -> None:
    """Otherwise DVC appends lines to the file, in the order in which stages run."""
    lines = (ROOT / "data/.gitignore").read_text().splitlines()
    ignored = [line for line in lines if line and not line.startswith("#")]
    for name in [name for stage in STAGES for name in outputs(stage)] + ["data/raw"]:
        inside = name.removeprefix("data")
        assert any(inside == line or inside.startswith(f"{line}/") for line in ignored), name


def test_git_has_the_files_that_dvc_must_not_touch() -> None:
    for name in IN_GIT:
        command = ["git", "check-ignore", "--quiet", "--no-index", name]
        assert subprocess.run(command, cwd=ROOT, check=False).returncode == 1
        for stage in STAGES:
            assert name not in outputs(stage) + names(body(stage)["deps"])


def test_only_schemas_raise_a_value_error() -> None:
    """There pydantic collects them. Elsewhere a person's mistake is a `UserError`."""
    isolated = Path("tasks/registry/predict_isolated.py")  # imports nothing of this project
    bare = {"ValueError", "OSError", "RuntimeError", "Exception"}
    for path in [path for folder in ("flows", "serving", "tasks") for path in python_files(folder)]:
        raised = {
            getattr(node.exc.func, "id", "")
            for node in ast.walk(parse(path))
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
        }
        if path.parent != Path("tasks/params") and path != isolated:
            assert not raised & bare, path


@pytest.mark.parametrize("kind", [DeprecationWarning, FutureWarning])
def test_a_deprecated_call_is_an_error_in_our_own_code(kind: type[Warning]) -> None:
    for room in ("bench", "flows", "serving", "tasks"):
        with pytest.raises(kind):
            warnings.warn_explicit("old", kind, "module.py", 1, module=f"{room}.module")
    warnings.warn_explicit("old", kind, "module.py", 1, module="keras.module")


def test_no_module_is_a_drawer() -> None:
    drawers = {"common", "utils", "helpers", "constants", "base"}
    for folder in ("tasks", "flows", "serving"):
        for path in python_files(folder):
            assert not drawers & {path.stem, *path.parts}, path


def test_every_key_of_params_is_described() -> None:
    """The reference page of the docs is made of these sentences."""
    for model in sections_below(Params):
        for name, field in model.model_fields.items():
            text = field.description or ""
            assert text.endswith("."), f"{model.__name__}.{name}: {text}"
            assert text[0] == "`" or text[0].isupper(), f"{model.__name__}.{name}: {text}"


def test_every_key_of_params_is_used() -> None:
    """A key that no code reads is an empty promise. Each is an attribute or a text in tasks/."""
    code = "\n".join(
        (ROOT / path).read_text()
        for path in python_files("tasks")
        if path.parent != Path("tasks/params") or path.stem == "train"
    )
    for model in sections_below(Params):
        for name in model.model_fields:
            assert re.search(rf"[.\"']{name}\b", code), f"{model.__name__}.{name}"


def sections_below(kind: object) -> set[type[BaseModel]]:
    """Return all models in a type: itself, those in its arguments and those in its fields."""
    found = {kind} if isinstance(kind, type) and issubclass(kind, BaseModel) else set()
    fields = [field.annotation for model in found for field in model.model_fields.values()]
    return found.union(*map(sections_below, [*get_args(kind), *fields]))
