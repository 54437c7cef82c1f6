"""Every recipe goes through all stages, on few small drawn images: its architectures train, are scored, compared and registered."""

import json
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from ruamel.yaml import YAML

from tasks import explain
from tasks.params.architectures import Classical, Transfer
from tasks.params.whole import load_params
from tasks.results import find_folder
from tasks.tables import read_table
from tests.params.test_recipes import FOLDERS
from tests.support import ROOT, draw
from tests.support.oracle import check as check_numbers
from tests.support.page import parse
from tests.support.pipeline import enter, run_stage

PARTS = {"Training": 6, "Validate": 3, "Testing": 3}
SMALLER = {"image_size": 32, "epochs": 1, "batch_size": 8}
RECIPES = sorted(set(FOLDERS) - {"params", "brain_mri"})  # whose networks are all in brain_mri_resnet50


def shrink(name: str) -> dict:
    """The recipe for one short epoch on small images: few filters and trees, backbones at random on one view."""
    recipe = YAML(typ="safe", pure=True).load(ROOT / f"recipes/{name}.yaml")
    sections = load_params(ROOT / f"recipes/{name}.yaml").architectures
    for key, architecture in sections.items():
        changes: dict[str, object] = dict(SMALLER)
        if isinstance(architecture.structure, Transfer):
            changes |= {"weights": None, "views": 1, "image_size": 75 if architecture.structure.backbone == "InceptionV3" else 32}
        elif isinstance(architecture.structure, Classical):
            changes |= {"trees": 5, **({"features": {"weights": None}} if architecture.structure.features else {})}
        elif architecture.structure.filters:
            changes |= {"filters": [4 for _ in architecture.structure.filters], "dense": [8]}
        recipe["architectures"][key] = merged(recipe["architectures"][key] or {}, changes)
    recipe["validate"]["expectations"] |= {
        "images_per_class": {"minimum": 5, "level": "error"}, "usable_share": {"minimum": 0.5, "level": "error"},
    }  # fmt: skip
    recipe["explain"] = {"right": 1, "wrong": 1}
    recipe["split"]["patients"] = {"pattern": None}  # of so few images all would be one patient's
    return recipe


def merged(section: dict, changes: dict) -> dict:
    """Lay changes over an architecture's section, key by key."""
    both = {key: merged(section[key], value) for key, value in changes.items() if isinstance(value, dict) and key in section}
    return section | changes | both


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs_through_all_stages(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw.draw_folders(tmp_path / "data/raw", {part: dict.fromkeys(FOLDERS[name], count) for part, count in PARTS.items()}, size=40)
    YAML().dump(shrink(name), tmp_path / "params.yaml")
    for package in ("tasks", "serving"):
        (tmp_path / package).symlink_to(ROOT / package)
    enter(tmp_path, monkeypatch)
    monkeypatch.setattr(explain, "DRAWS", 1)
    architectures = load_params().architectures
    for stage in ("validate", "clean", "split", "weigh"):
        run_stage(stage)
    for key in architectures:
        run_stage(f"train@{key}")
        run_stage(f"evaluate@{key}")
        run_stage(f"explain@{key}")
    for stage in ("combine", "compare", "register", "report"):
        run_stage(stage)
    comparison = read_table(Path("data/comparison.csv"))
    assert set(comparison.architecture) == {*architectures, *load_params().ensembles}
    for key, architecture in architectures.items():
        check_predictions(key, architecture.question.classes(FOLDERS[name]))
    check_registered(name)
    told = Path("data/report/report.html").read_text()
    check_numbers(Path.cwd(), parse(told), load_params().evaluate.calibration_bins)
    assert all(key in told for key in architectures)
    assert ('id="shared"' in told) == (comparison.question.nunique() > 1)


def check_predictions(key: str, classes: list[str]) -> None:
    predictions = read_table(Path(f"data/results/{key}/predictions.csv"))
    probabilities = predictions[[f"p_{label}" for label in classes]]
    assert json.loads(Path(f"data/models/{key}/classes.json").read_text()) == classes
    assert list(predictions.columns) == ["path", "label", "split", "predicted", "distance", *probabilities.columns]
    assert probabilities.sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)
    assert set(predictions.label) == set(classes)


def check_registered(name: str) -> None:
    """What was registered answers for an image file as training did."""
    receipt = json.loads(Path("data/registration.json").read_text())
    results = find_folder(receipt["architecture"], Path("data/results"), Path("data/ensembles"))
    row = read_table(results / "predictions.csv").iloc[0]
    model = mlflow.pyfunc.load_model(f"models:/{receipt['model']}/{receipt['version']}")
    answer = model.predict(pd.DataFrame({"image": [Path("data/clean", row.path).read_bytes()]})).iloc[0]
    for column in [column for column in row.index if column.startswith("p_")]:
        assert answer[column] == pytest.approx(row[column], abs=1e-5), name
