"""`dvc.yaml`, `params.yaml` and the code agree: what a stage reads is declared, and nothing else is.

A dependency that is not declared leaves stale results, one that is not read trains for nothing. The code is read with
`ast`, so nothing needs to run.
"""

import ast
import itertools
import re
import subprocess
from collections.abc import Callable
from inspect import Parameter, Signature
from pathlib import Path

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
IN_GIT = {
    "data/promotions.jsonl"
}  # what a stage appends to, and DVC must neither empty nor take for stale
READERS = {
    "read_architecture": "architectures",
    "read_architectures": "architectures",
    "read_ensembles": "ensembles",
}
# Who may read the whole of params.yaml: no stage, or a key of one section would be a dependency of all.
WHOLE = {"tasks/stage.py", "tasks/params/__main__.py", "tasks/registry/load.py", "tasks/assessment/assess.py",
         "tasks/tuning/trials.py", "tasks/tuning/search.py", "tasks/tuning/write_back.py"}  # fmt: skip


def body(stage: str) -> dict:
    return STAGES[stage].get("do", STAGES[stage])


def names(entries: list) -> list[str]:
    """Names of deps, outs, metrics and plots, with or without settings of their own."""
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


def test_training_depends_on_no_room_that_judges_or_reports() -> None:
    assert not {
        "tasks/scoring",
        "tasks/reporting",
        "tasks/registry",
        "tasks/inference",
        "tasks/quality",
    } & set(code_of("train"))


def test_packages_hold_no_code_that_decides_results() -> None:
    """`__init__.py` is no dependency of any stage: it may settle what a machine brings along, and nothing else."""
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
    """The sections of params that a stage reads: `read_section("split", Split)`, `read_architecture(name)` and their like."""
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
    return found | ({"train"} if "architectures" in found else set())  # which are laid over `train`


@pytest.mark.parametrize("stage", STAGES)
def test_the_params_of_a_stage_are_the_sections_it_reads(stage: str) -> None:
    assert {name.split(".")[0] for name in body(stage).get("params", [])} == sections_read(stage)


def test_only_a_stage_itself_reads_params() -> None:
    """What a module below reads would escape the check above."""
    stages = {f"tasks/{stage}.py" for stage in STAGES}
    readers = {
        "tasks.params.read.read_section",
        *(f"tasks.params.{room}.{name}" for name, room in READERS.items()),
    }
    for path in python_files("tasks"):
        if path.parent != Path("tasks/params"):
            assert str(path) in stages or not readers & imports(path), path
        assert str(path) in WHOLE or "tasks.params.whole" not in imports(path), path


def test_training_one_architecture_reads_its_section_alone() -> None:
    assert set(body("train")["params"]) == {"architectures.${key}", "train"}
    assert set(body("compare")["params"]) >= {"architectures"}
    assert STAGES["train"]["foreach"] == STAGES["evaluate"]["foreach"] == "${architectures}"


def arguments(stage: str) -> dict[str, object]:
    """The arguments of a stage's command, by the name of its parameter, as the stage itself reads them."""
    _, _, called, *words = body(stage)["cmd"].replace("${key}", "cnn_a").split()
    assert called == f"tasks.{stage}"
    return read_arguments(signature(stage), words)


def signature(stage: str) -> Callable[..., None]:
    """A function with the options of a stage's `main`, without importing what the stage needs."""
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
def test_a_command_gives_what_is_declared_and_nothing_else(stage: str) -> None:
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
    """Any two, in the command of `dvc.yaml`."""
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


def test_times_lie_in_no_folder_that_dvc_looks_at() -> None:
    """No two machines take equally long, so a model would be trained again where nothing but its times differ."""
    looked_at = {
        path for stage in STAGES for path in [*outputs(stage), *names(body(stage)["deps"])]
    }
    assert not [
        path
        for path in looked_at
        if TIMING.is_relative_to(path) or Path(path).is_relative_to(TIMING)
    ]
    ignored = subprocess.run(["git", "check-ignore", "--quiet", TIMING], cwd=ROOT, check=False)
    assert ignored.returncode == 0


def test_registering_is_not_replayed_from_the_cache() -> None:
    assert {"data/registration.json": {"cache": False}} in body("register")["outs"]


def test_git_ignores_every_output() -> None:
    """DVC appends lines in the order stages run, which would change a file that folders of dependencies contain."""
    ignored = [
        line
        for line in (ROOT / "data/.gitignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    for name in [name for stage in STAGES for name in outputs(stage)] + ["data/raw"]:
        inside = name.removeprefix("data")
        assert any(inside == line or inside.startswith(f"{line}/") for line in ignored), name


def test_git_keeps_what_dvc_must_not_touch() -> None:
    for name in IN_GIT:
        assert (
            subprocess.run(
                ["git", "check-ignore", "--quiet", "--no-index", name], cwd=ROOT, check=False
            ).returncode
            == 1
        )
        assert name not in [
            entry for stage in STAGES for entry in outputs(stage) + names(body(stage)["deps"])
        ]


def test_only_schemas_raise_a_bare_value_error() -> None:
    """pydantic collects those. Elsewhere a person's mistake is a `UserError`, and a `ValueError` is ours or a library's."""
    isolated = Path("tasks/registry/predict_isolated.py")  # imports nothing of this project
    for path in [path for folder in ("flows", "serving", "tasks") for path in python_files(folder)]:
        raised = [
            node.exc.func
            for node in ast.walk(parse(path))
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
        ]
        if path.parent != Path("tasks/params") and path != isolated:
            assert not {getattr(error, "id", "") for error in raised} & {
                "ValueError",
                "OSError",
                "RuntimeError",
                "Exception",
            }, path


def test_no_drawers() -> None:
    drawers = {"common", "utils", "helpers", "constants", "base"}
    for folder in ("tasks", "flows", "serving"):
        assert not [
            path
            for path in python_files(folder)
            if path.stem in drawers or set(path.parts) & drawers
        ]


def test_every_key_of_params_is_used() -> None:
    """A key that no code reads would promise something: each name occurs as an attribute below tasks/, or as a text there."""
    code = "\n".join(
        (ROOT / path).read_text()
        for path in python_files("tasks")
        if path.parent != Path("tasks/params") or path.stem == "train"
    )
    for model in sections_below(Params):
        for name in model.model_fields:
            assert re.search(rf"[.\"']{name}\b", code), f"{model.__name__}.{name}"


def sections_below(model: type[BaseModel]) -> set[type[BaseModel]]:
    """A model of params and all models in its fields."""
    found = {model}
    for field in model.model_fields.values():
        for kind in [field.annotation, *getattr(field.annotation, "__args__", ())]:
            if isinstance(kind, type) and issubclass(kind, BaseModel) and kind not in found:
                found |= sections_below(kind)
    return found
