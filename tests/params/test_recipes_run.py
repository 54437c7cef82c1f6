"""The networks of all recipes can be built. Each kind and question goes through all stages."""

import json
from pathlib import Path

import keras
import mlflow
import pandas as pd
import pytest

from tasks import explain
from tasks.modeling import backbones
from tasks.modeling.backbones import build_transfer
from tasks.modeling.layers import build_model
from tasks.params.architectures import Cnn, Transfer
from tasks.params.search_space import vary
from tasks.params.whole import load_params
from tasks.results import find_folder
from tasks.tables import read_table
from tests.params.test_recipes import FOLDERS, TUMOURS, load_recipe
from tests.support import ROOT, draw, toy_backbone
from tests.support.oracle import check as check_numbers
from tests.support.page import parse
from tests.support.pipeline import enter, run_stage, stages

pytestmark = pytest.mark.slow
# Each kind of model and of question, an ensemble, and the rarer keys of brain_mri_best.
ALL_KINDS = """
validate: {expectations: {images_per_class: {minimum: 5, level: error}}}
train:
  image_size: 32
  dark_border: 20
  test_views: [mirrored]
  batch_size: 8
  epochs: 1
  optimizer: adamw
  schedule: {kind: cosine}
  early_stopping: null
  keep: last
  augmentation: light
architectures:
  cnn: {like: cnn_a, filters: [4, 4, 4], dense: [8]}
  forest: {like: random_forest, trees: 5}
  groups:
    like: random_forest
    trees: 5
    labels: {gland: [pituitary_tumor], none: [no_tumor], tumor: [glioma_tumor, meningioma_tumor]}
  tuned:
    like: MobileNet
    options: {alpha: 0.5}
    weights: small.weights.h5
    trainable_from: conv_4
    positive: no_tumor
ensembles:
  vote: {members: [cnn, forest], vote: soft, weights: equal}
explain: {right: 1, wrong: 1}
register: {model: all_kinds}
split: {}
weigh: {}
evaluate: {}
compare: {}
report: {}
"""


def test_the_networks_of_recipes_fit_their_images() -> None:
    """They are built in full size, except for wide dense layers."""
    built = set()
    for name, folders in FOLDERS.items():
        for key, section in load_recipe(name).architectures.items():
            if isinstance(section.structure, Cnn):
                thin = vary(section, {"dense": [1]}).structure
                arguments = (
                    thin,
                    section.train.form.shape,
                    len(section.question.classes(folders)),
                )
                if arguments not in built:
                    model = build_model(*arguments, binary=section.question.positive is not None)
                    assert model.output_shape == (None, arguments[-1]), (name, key)
                built.add(arguments)


def test_the_backbones_of_recipes_have_the_layers_that_are_trained() -> None:
    """They are built smaller, with random weights."""
    built: dict[str, keras.Model] = {}
    for name, folders in FOLDERS.items():
        for key, section in load_recipe(name).architectures.items():
            if isinstance(section.structure, Transfer):
                size = 75 if section.structure.backbone == "InceptionV3" else 32
                structure = vary(section, {"weights": None, "image_size": size}).structure
                shared = structure.model_copy(
                    update={"trainable_from": None, "phases": ()}
                ).model_dump_json()
                if shared not in built:
                    built[shared] = build_transfer(
                        structure, (size, size, 3), len(section.question.classes(folders))
                    )
                for layer in (
                    structure.trainable_from,
                    *(phase.trainable_from for phase in structure.phases),
                ):
                    assert backbones.find_layer(built[shared], layer) >= 0, (name, key)


def test_every_kind_and_question_goes_through_all_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {"Training": 6, "Validate": 3, "Testing": 3}
    draw.draw_set(
        tmp_path / "data/raw",
        {part: dict.fromkeys(TUMOURS, count) for part, count in counts.items()},
        size=40,
    )
    (tmp_path / "params.yaml").write_text(ALL_KINDS)
    for package in ("tasks", "serving"):
        (tmp_path / package).symlink_to(ROOT / package)
    toy_backbone.write_weights(tmp_path / "small.weights.h5", (32, 32))
    enter(tmp_path, monkeypatch)
    monkeypatch.setattr(explain, "DRAWS", 1)
    with toy_backbone.in_place_of_mobilenet():
        for stage in stages(ALL_KINDS):
            run_stage(stage)
    params = load_params()
    comparison = read_table(Path("data/comparison.csv"))
    assert set(comparison.architecture) == {*params.architectures, *params.ensembles}
    for key, architecture in params.architectures.items():
        check_predictions(key, architecture.question.classes(TUMOURS))
    check_registered()
    page = Path("data/report/report.html").read_text()
    check_numbers(Path.cwd(), parse(page), params.evaluate.calibration_bins)
    assert all(key in page for key in params.architectures)
    assert 'id="shared"' in page


def check_predictions(key: str, classes: list[str]) -> None:
    predictions = read_table(Path(f"data/results/{key}/predictions.csv"))
    probabilities = predictions[[f"p_{label}" for label in classes]]
    assert json.loads(Path(f"data/models/{key}/classes.json").read_text()) == classes
    assert list(predictions.columns) == [
        "path",
        "label",
        "split",
        "predicted",
        "distance",
        *probabilities.columns,
    ]
    assert probabilities.sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)
    assert set(predictions.label) == set(classes)


def check_registered() -> None:
    """Check that the registered model predicts an image file as training did."""
    receipt = json.loads(Path("data/registration.json").read_text())
    results = find_folder(receipt["architecture"], Path("data/results"), Path("data/ensembles"))
    row = read_table(results / "predictions.csv").iloc[0]
    model = mlflow.pyfunc.load_model(f"models:/{receipt['model']}/{receipt['version']}")
    answer = model.predict(
        pd.DataFrame({"image": [Path("data/clean", row.path).read_bytes()]})
    ).iloc[0]
    for column in [column for column in row.index if column.startswith("p_")]:
        assert answer[column] == pytest.approx(row[column], abs=1e-5), column
