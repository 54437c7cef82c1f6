"""Every architecture of every recipe trains a step on drawn images; one of each kind and question goes through all stages."""

import json
from collections.abc import Iterator
from pathlib import Path

import keras
import mlflow
import pandas as pd
import pytest
import tensorflow as tf

from tasks import explain
from tasks.modeling.fitting import Watch, load_images, train
from tasks.modeling.layers import build_model
from tasks.params.architectures import Architecture, Classical, Cnn, Transfer
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
PARTS = {"training": 2, "validation": 1}  # images of each class
# Each kind of model, each kind of question, an ensemble, and the rarer keys of train that brain_mri_best has.
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


def test_the_networks_of_a_recipe_fit_its_images() -> None:
    """In their own size, and without the weights of wide dense layers."""
    built = set()
    for name, folders in FOLDERS.items():
        for key, section in load_recipe(name).architectures.items():
            if isinstance(section.structure, Cnn):
                thin = vary(section, {"dense": [1]}).structure
                arguments = (thin, section.train.image_size, section.train.channels, len(section.question.classes(folders)))
                if arguments not in built:
                    model = build_model(*arguments, binary=section.question.positive is not None)
                    assert model.output_shape == (None, arguments[-1]), (name, key)
                built.add(arguments)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Images of all class folders that a recipe asks for, drawn once: columns as in `splits.csv`, and their folder."""
    root = tmp_path_factory.mktemp("drawn")
    folders = sorted({folder for folders in FOLDERS.values() for folder in folders})
    draw.draw_folders(root, {part: dict.fromkeys(folders, count) for part, count in PARTS.items()}, size=40)
    paths = sorted(path.relative_to(root) for path in root.rglob("*.jpg"))
    rows = [{"path": str(path), "sha256": str(path), "split": path.parts[0], "folder": path.parts[1]} for path in paths]
    return pd.DataFrame(rows).assign(group=range(len(rows)), root=root)


@pytest.fixture
def eager() -> Iterator[None]:
    """Compute without tracing graphs, which takes longer than the few steps here."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def trained() -> set[str]:
    """What trained already, as recipes have architectures in common."""
    return set()


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.usefixtures("eager")
def test_the_architectures_of_a_recipe_train(
    name: str, drawn: pd.DataFrame, trained: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for key, architecture in load_recipe(name).architectures.items():
        section = shrink(architecture)
        content = f"{FOLDERS[name]} {section.model_dump_json()}"
        if content not in trained:
            check_training(section, drawn[drawn.folder.isin(FOLDERS[name])].reset_index(drop=True), key)
            trained.add(content)


def shrink(section: Architecture) -> Architecture:
    """The architecture for one short epoch on small images: few filters and trees, backbones at random on one view."""
    changes: dict[str, object] = {"image_size": 32, "epochs": 1, "batch_size": 8, "seed": 1}
    if isinstance(section.structure, Transfer):
        changes |= {"weights": None, "image_size": 75 if section.structure.backbone == "InceptionV3" else 32}
        changes |= {"views": 1} if section.structure.views else {}
    elif isinstance(section.structure, Classical):
        changes |= {"trees": 5}
    elif section.structure.filters:
        changes |= {"filters": [4 for _ in section.structure.filters], "dense": [8]}
    return vary(section, changes)


def check_training(section: Architecture, images: pd.DataFrame, key: str) -> None:
    classes = section.question.classes(images.folder)
    splits = images.assign(label=images.folder.map(section.question.answers(images.folder)))
    pixels = load_images(images.root[0], splits, dict.fromkeys(classes, 1.0), section)
    rows: list[dict[str, float]] = []
    fitted = train(section, pixels, splits, Path(f"{key}.npz"), key, Watch(lambda row, epochs: rows.append(row)))
    assert [row["epoch"] for row in rows] == [1], key
    outputs = fitted.model.output_shape[-1] if isinstance(fitted.model, keras.Model) else len(fitted.model.classes_)
    assert outputs == len(classes), key


def test_every_kind_and_question_goes_through_all_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"Training": 6, "Validate": 3, "Testing": 3}
    draw.draw_set(tmp_path / "data/raw", {part: dict.fromkeys(TUMOURS, count) for part, count in counts.items()}, size=40)
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
    told = Path("data/report/report.html").read_text()
    check_numbers(Path.cwd(), parse(told), params.evaluate.calibration_bins)
    assert all(key in told for key in params.architectures)
    assert 'id="shared"' in told


def check_predictions(key: str, classes: list[str]) -> None:
    predictions = read_table(Path(f"data/results/{key}/predictions.csv"))
    probabilities = predictions[[f"p_{label}" for label in classes]]
    assert json.loads(Path(f"data/models/{key}/classes.json").read_text()) == classes
    assert list(predictions.columns) == ["path", "label", "split", "predicted", "distance", *probabilities.columns]
    assert probabilities.sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)
    assert set(predictions.label) == set(classes)


def check_registered() -> None:
    """What was registered answers for an image file as training did."""
    receipt = json.loads(Path("data/registration.json").read_text())
    results = find_folder(receipt["architecture"], Path("data/results"), Path("data/ensembles"))
    row = read_table(results / "predictions.csv").iloc[0]
    model = mlflow.pyfunc.load_model(f"models:/{receipt['model']}/{receipt['version']}")
    answer = model.predict(pd.DataFrame({"image": [Path("data/clean", row.path).read_bytes()]})).iloc[0]
    for column in [column for column in row.index if column.startswith("p_")]:
        assert answer[column] == pytest.approx(row[column], abs=1e-5), column
