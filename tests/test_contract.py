"""`dvc.yaml`, `params.yaml` and the code agree: what a stage reads is declared, and nothing else is.

A dependency that is not declared leaves stale results, one that is not read trains for nothing. The code is read with
`ast`, so nothing needs to run.
"""

import ast
import re
import subprocess
from pathlib import Path

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from tasks.sections import Params
from tests.conftest import ROOT

STAGES = YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")["stages"]
OUTSIDE_DVC = {"data/data_docs"}  # pages for people, which differ from run to run
COMMANDS = {Path("tasks/assess.py"), Path("tasks/rewrite.py"), Path("tasks/tune.py")}  # run by a flow, and by no stage
IN_GIT = {"data/promotions.jsonl"}  # what a stage appends to, and DVC must neither empty nor take for stale
SECTIONS = {name: field.alias or name for name, field in Params.model_fields.items()}


def body(stage: str) -> dict:
    return STAGES[stage].get("do", STAGES[stage])


def names(entries: list) -> list[str]:
    """Names of deps, outs, metrics and plots, with or without settings of their own."""
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]


def outputs(stage: str) -> list[str]:
    return [name for kind in ("outs", "metrics", "plots") for name in names(body(stage).get(kind, []))]


def module(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(), str(path))


def imports(path: Path) -> set[str]:
    """All modules that a file imports, at any level of its code, in dotted form; of `from a import b` also `a.b`."""
    found = set()
    for node in ast.walk(module(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports are not followed here"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def local_imports(path: Path) -> set[Path]:
    """The files of this repository that a file imports; packages are only folders here."""
    candidates = {Path(*name.split(".")).with_suffix(".py") for name in imports(path)}
    return {candidate for candidate in candidates if (ROOT / candidate).is_file()}


def needs(path: Path) -> set[Path]:
    """A file and every file that it imports, and they import, and so on."""
    seen, waiting = set(), [path]
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            waiting += local_imports(current)
    return seen


def python_files(folder: str) -> list[Path]:
    return sorted(path.relative_to(ROOT) for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("stage", STAGES)
def test_the_python_deps_of_a_stage_are_the_modules_it_imports(stage: str) -> None:
    declared = {Path(dep) for dep in names(body(stage)["deps"]) if dep.endswith(".py")}
    needed = needs(Path(f"tasks/{stage}.py"))
    if stage == "register":
        needed |= needs(Path("serving/pyfunc.py"))  # MLflow reads it
    assert declared == needed


def test_packages_hold_no_code_that_decides_results() -> None:
    """`__init__.py` is no dependency of any stage: it may quieten libraries, and nothing else."""
    for path in python_files("tasks") + python_files("serving"):
        if path.name == "__init__.py":
            assert imports(path) <= {"os", "sys", "tasks"}
            assert not [node for node in ast.walk(module(path)) if isinstance(node, ast.FunctionDef | ast.ClassDef)]


def test_the_report_depends_on_its_templates() -> None:
    """And on those that they include, and they include, and so on."""
    templates, waiting = set(), ["report.html", "report.md"]
    while waiting:
        text = (ROOT / "tasks/templates" / (name := waiting.pop())).read_text()
        templates.add(f"tasks/templates/{name}")
        waiting += re.findall(r'{% (?:include|extends|from) "([^"]+)"', text)
    assert templates == {dep for dep in names(body("report")["deps"]) if dep.startswith("tasks/templates/")}


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_listed_once_and_in_order(stage: str) -> None:
    deps = names(body(stage)["deps"])
    assert deps == sorted(set(deps))


def sections_read(path: Path) -> set[str]:
    """The sections of params that a module reads: `load_params().x`, or `params.x` after `params = load_params()`."""
    tree = module(path)

    def loads(node: ast.AST) -> bool:
        return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "load_params"

    whole = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and loads(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    of_call = {node.attr for node in attributes if loads(node.value)}
    of_name = {node.attr for node in attributes if isinstance(node.value, ast.Name) and node.value.id in whole} & set(SECTIONS)
    return {SECTIONS[name] for name in of_call | of_name}


@pytest.mark.parametrize("stage", STAGES)
def test_the_params_of_a_stage_are_the_sections_it_reads(stage: str) -> None:
    read = sections_read(Path(f"tasks/{stage}.py"))
    if "architectures" in read:
        read.add("train")  # the defaults of every architecture
    declared = {name.split(".")[0] for name in body(stage).get("params", [])}
    assert declared == read


def test_only_a_stage_itself_reads_params() -> None:
    """What a module below reads would escape the check above."""
    stages = {Path(f"tasks/{stage}.py") for stage in STAGES}
    for path in set(python_files("tasks")) - stages - COMMANDS - {Path("tasks/params.py")}:
        assert "tasks.params.load_params" not in imports(path), path


def test_training_one_architecture_reads_its_section_alone() -> None:
    assert set(body("train")["params"]) == {"architectures.${key}", "train"}
    assert set(body("compare")["params"]) >= {"architectures"}
    assert STAGES["train"]["foreach"] == STAGES["evaluate"]["foreach"] == "${architectures}"


@pytest.mark.parametrize("stage", STAGES)
def test_the_paths_of_a_command_are_declared(stage: str) -> None:
    _, _, called, *words = body(stage)["cmd"].split()
    assert called == f"tasks.{stage}"
    declared = names(body(stage)["deps"]) + outputs(stage)
    paths = {word for word in words if "/" in word} - OUTSIDE_DVC - IN_GIT
    for path in paths:
        assert path in declared or any(name.startswith(f"{path}/") for name in declared), path


@pytest.mark.parametrize("stage", STAGES)
def test_declared_data_are_given_to_the_command(stage: str) -> None:
    words = body(stage)["cmd"].split()
    data = [name for name in names(body(stage)["deps"]) + outputs(stage) if name.startswith("data/")]
    for name in data:
        assert any(name == word or name.startswith(f"{word}/") for word in words), name


def test_the_command_has_as_many_words_as_the_stage_has_parameters() -> None:
    for stage in STAGES:
        functions = {node.name: node for node in module(Path(f"tasks/{stage}.py")).body if isinstance(node, ast.FunctionDef)}
        assert len(functions["main"].args.args) == len(body(stage)["cmd"].split()) - 3, stage


def test_every_output_has_one_writer_and_every_input_comes_from_somewhere() -> None:
    written = [name for stage in STAGES for name in outputs(stage)]
    assert len(written) == len(set(written))
    for stage in STAGES:
        for name in names(body(stage)["deps"]):
            if name.startswith("data/") and name != "data/raw":
                assert any(f"{one}/".startswith(f"{name}/") or name.startswith(f"{one}/") for one in written), f"{stage}: {name}"


def test_no_stage_writes_into_what_it_reads() -> None:
    for stage in STAGES:
        for out in outputs(stage):
            assert not any(out == dep or out.startswith(f"{dep}/") for dep in names(body(stage)["deps"])), f"{stage}: {out}"


def test_registering_is_not_replayed_from_the_cache() -> None:
    assert {"data/registration.json": {"cache": False}} in body("register")["outs"]


def test_git_ignores_every_output() -> None:
    """DVC appends lines in the order stages run, which would change a file that folders of dependencies contain."""
    ignored = [line for line in (ROOT / "data/.gitignore").read_text().splitlines() if line and not line.startswith("#")]
    for name in [name for stage in STAGES for name in outputs(stage)] + ["data/raw", *OUTSIDE_DVC]:
        inside = name.removeprefix("data")
        assert any(inside == line or inside.startswith(f"{line}/") for line in ignored), name


def test_git_keeps_what_dvc_must_not_touch() -> None:
    for name in IN_GIT:
        assert subprocess.run(["git", "check-ignore", "--quiet", "--no-index", name], cwd=ROOT, check=False).returncode == 1
        assert name not in [entry for stage in STAGES for entry in outputs(stage) + names(body(stage)["deps"])]


@pytest.mark.parametrize(
    ("folder", "banned"),
    [
        ("tasks", {"prefect", "flows"}),
        ("serving", {"prefect", "flows"}),
        ("flows", {"tensorflow", "keras"}),
        ("tasks/scoring", {"tensorflow", "keras", "tasks.modeling", "tasks.imaging"}),
        ("tasks/imaging", {"tasks.modeling", "tasks.scoring"}),
        ("tasks/modeling", {"tasks.scoring"}),
    ],
)
def test_who_imports_whom(folder: str, banned: set[str]) -> None:
    files = python_files(folder)
    assert files
    for path in files:
        found = imports(path)
        assert not {name for name in found for bad in banned if name == bad or name.startswith(f"{bad}.")}, path


def test_flows_need_no_tensorflow_by_a_detour() -> None:
    for path in python_files("flows"):
        for needed in needs(path):
            assert not {name for name in imports(needed) if name.split(".")[0] in ("tensorflow", "keras")}, f"{path} by {needed}"


def test_no_drawers() -> None:
    drawers = {"common", "utils", "helpers", "constants", "base"}
    for folder in ("tasks", "flows", "serving"):
        assert not [path for path in python_files(folder) if path.stem in drawers or set(path.parts) & drawers]


def test_every_key_of_params_is_used() -> None:
    """A key that no code reads would promise something: each name occurs as an attribute below tasks/, or as a text there."""
    code = "\n".join(
        (ROOT / path).read_text()
        for path in python_files("tasks")
        if path.name not in ("params.py", "sections.py", "changes.py", "form.py")
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
