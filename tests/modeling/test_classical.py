"""Classifiers learn digits, load as they were saved, have equal files, and refuse others."""

import json
import pickle
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import skops.io
from sklearn.datasets import load_digits
from sklearn.linear_model import Ridge
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline

from tasks.errors import UserError
from tasks.modeling import classical
from tasks.modeling.classical import Examples
from tasks.params.architectures import Classical
from tests.support import ROOT

CLASSIFIERS = ["random_forest", "logistic_regression", "linear_svm", "rbf_svm"]


pytestmark = pytest.mark.slow


@cache
def digits(classes: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features and targets of 8x8 digits to train on, then of a third held out."""
    features, targets = load_digits(n_class=classes, return_X_y=True)
    parts = train_test_split(
        features.astype(np.float32) / 16, targets, test_size=1 / 3, random_state=0, stratify=targets
    )
    return parts[0], parts[2], parts[1], parts[3]


def fit(
    classifier: str, classes: int = 10, seed: int = 0, threads: int = 2, **changes: object
) -> Pipeline:
    features, targets, _, _ = digits(classes)
    structure = Classical(classifier=classifier, **{"trees": 60, **changes})
    examples = Examples(features, targets, np.ones(len(targets), np.float32))
    return classical.fit(structure, examples, seed, threads)


@cache
def fitted(classifier: str) -> Pipeline:
    return fit(classifier)


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_held_out_digits_are_told_apart_with_fair_probabilities(classifier: str) -> None:
    """The probabilities are good ones if their log loss is far from that of guessing, 2.3."""
    _, _, features, targets = digits()
    probabilities = classical.predict(fitted(classifier), features)
    assert probabilities.shape == (len(targets), 10) and probabilities.dtype == np.float32
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert (probabilities.argmax(axis=1) == targets).mean() > 0.93
    assert -np.log(np.maximum(probabilities[np.arange(len(targets)), targets], 1e-7)).mean() < 0.5


@pytest.mark.parametrize("classifier", ["random_forest", "rbf_svm"])
def test_two_classes_have_two_columns(classifier: str) -> None:
    _, _, features, targets = digits(2)
    probabilities = classical.predict(fit(classifier, classes=2), features)
    assert probabilities.shape == (len(targets), 2)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert (probabilities.argmax(axis=1) == targets).mean() > 0.98


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_a_classifier_comes_back_from_disk_as_it_was(classifier: str, tmp_path: Path) -> None:
    features = digits()[2]
    classical.save(fitted(classifier), tmp_path / "model.skops")
    loaded = classical.load(tmp_path / "model.skops")
    before, after = (
        classical.predict(estimator, features) for estimator in (fitted(classifier), loaded)
    )
    assert np.array_equal(before, after)
    assert classical.count_parameters(loaded) == classical.count_parameters(fitted(classifier))


def test_training_again_gives_the_same_files(tmp_path: Path) -> None:
    """Another process has other addresses in memory. The number of threads must be the same."""
    code = (
        "import sys; from pathlib import Path; from tests.modeling import test_classical as t\n"
        "for name in t.CLASSIFIERS: t.classical.save(t.fit(name, 3), Path(sys.argv[1], name))"
    )
    subprocess.run(
        [sys.executable, "-c", code, tmp_path], cwd=ROOT, check=True, capture_output=True
    )
    for classifier in CLASSIFIERS:
        classical.save(fit(classifier, 3), tmp_path / "model.skops")
        assert (tmp_path / "model.skops").read_bytes() == (tmp_path / classifier).read_bytes(), (
            classifier
        )


def test_the_file_knows_no_time_and_no_address(tmp_path: Path) -> None:
    classical.save(fitted("rbf_svm"), tmp_path / "model.skops")
    with zipfile.ZipFile(tmp_path / "model.skops") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        objects = archive.read("schema.json").decode().count('"__id__"')
        numbers = [int(Path(name).stem) for name in archive.namelist() if name.endswith(".npy")]
    assert numbers == sorted(numbers) and max(numbers) <= objects


def test_settings_reach_the_classifier() -> None:
    forests = [fit("random_forest", trees=7, seed=seed) for seed in (0, 1)]
    assert [len(forest[-1].estimators_) for forest in forests] == [7, 7]
    one, other = (classical.predict(forest, digits()[2]) for forest in forests)
    assert not np.array_equal(one, other)
    weak, strong = (
        np.abs(fit("logistic_regression", 3, regularization=c)[-1].coef_).sum()
        for c in (1.0, 0.001)
    )
    assert strong < weak / 2


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_weights_make_a_rare_class_more_likely(classifier: str) -> None:
    """Three features of noise: only the weights say which class to bet on."""
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(200, 3)).astype(np.float32), np.repeat([0, 1], [150, 50])
    structure = Classical(classifier=classifier, trees=60)
    means = []
    for weight in (1.0, 9.0):
        examples = Examples(features, targets, np.where(targets, weight, 1.0))
        model = classical.fit(structure, examples, seed=0, threads=2)
        means.append(classical.predict(model, features).mean(axis=0)[1])
    assert means[1] > means[0] + 0.02


def test_parameters_are_counted_fairly() -> None:
    assert classical.count_parameters(fitted("logistic_regression")) == 10 * 64 + 10
    assert classical.count_parameters(fitted("linear_svm")) == 45 * 64 + 45 + 10 * 2
    vectors = len(fitted("rbf_svm")[-1].calibrated_classifiers_[0].estimator.support_)
    assert classical.count_parameters(fitted("rbf_svm")) == vectors * 64 + 9 * vectors + 45 + 10 * 2
    forest = fitted("random_forest")[-1]
    assert classical.count_parameters(fitted("random_forest")) == sum(
        2 * tree.get_n_leaves() - 1 for tree in forest.estimators_
    )


def test_copies_stay_in_one_fold_of_the_calibration() -> None:
    """Of noise nothing can be learnt, but copies of every image in other folds would look as if."""
    rng = np.random.default_rng(0)
    features, targets = (
        np.tile(rng.normal(size=(60, 5)), (4, 1)).astype(np.float32),
        np.tile(np.arange(60) % 2, 4),
    )
    structure, ones = Classical(classifier="rbf_svm", regularization=100), np.ones(240)
    apart, together = (
        classical.predict(
            classical.fit(structure, Examples(features, targets, ones, groups), 0, 1), features
        )
        .max(axis=1)
        .mean()
        for groups in (None, np.tile(np.arange(60), 4))
    )
    assert together < 0.75 < apart


@pytest.mark.parametrize("targets", [[0, 0, 2, 2], [1, 1, 1, 1]])
def test_a_class_without_training_images_is_named(targets: list[int]) -> None:
    with pytest.raises(
        UserError,
        match="training images of every class, and at least two classes; received images of the",
    ):
        classical.fit(
            Classical(classifier="random_forest"),
            Examples(np.eye(4, dtype=np.float32), np.array(targets), np.ones(4)),
            seed=0,
            threads=1,
        )


def test_an_svm_says_that_a_class_is_too_small() -> None:
    with pytest.raises(
        UserError, match="at least two training images of each class that are not duplicates"
    ):
        classical.fit(
            Classical(classifier="rbf_svm"),
            Examples(np.eye(4, dtype=np.float32), np.array([0, 0, 0, 1]), np.ones(4)),
            seed=0,
            threads=1,
        )


def test_pixels_become_features_from_0_to_1() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3) * 11
    features = classical.flatten(pixels)
    assert features.shape == (2, 12) and features.dtype == np.float32
    assert features[1, 11] == pytest.approx(253 / 255)


def rewrite(file: Path, name: str, content: bytes) -> None:
    """Put other content into a skops file, as somebody would who wants it to be loaded."""
    with zipfile.ZipFile(file) as archive:
        contents = {entry: archive.read(entry) for entry in archive.namelist()} | {name: content}
    with zipfile.ZipFile(file, "w") as archive:
        for entry, value in contents.items():
            archive.writestr(entry, value)


def test_a_type_that_is_not_trusted_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.skops"
    classical.save(fitted("logistic_regression"), file)
    schema = json.loads(zipfile.ZipFile(file).read("schema.json"))
    schema |= {"__class__": "system", "__module__": "os", "__loader__": "ObjectNode"}
    rewrite(file, "schema.json", json.dumps(schema).encode())
    with pytest.raises(
        UserError,
        match=r"model\.skops is refused: Untrusted types found in the file: \['os\.system'\]",
    ):
        classical.load(file)


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.skops"
    file.write_bytes(pickle.dumps(fitted("logistic_regression")))
    with pytest.raises(
        UserError, match=r"model\.skops is not a complete skops file .*train it again"
    ):
        classical.load(file)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.skops"
    classical.save(fitted("logistic_regression"), file)
    whole = file.read_bytes()
    for place in (0.0, 0.3, 0.6, 0.99):
        start = int(place * len(whole))
        file.write_bytes(whole[:start] + b"\xff" * 8 + whole[start + 8 :])
        with pytest.raises(UserError, match=r"model\.skops is not a complete skops file"):
            classical.load(file)


def test_another_estimator_is_refused(tmp_path: Path) -> None:
    skops.io.dump(Ridge().fit([[0.0], [1.0]], [0, 1]), tmp_path / "model.skops")
    with pytest.raises(
        UserError, match="contains a Ridge: expected a classifier that training wrote"
    ):
        classical.load(tmp_path / "model.skops")


@pytest.mark.parametrize(
    ("field", "value"),
    [("left_child", 10**6), ("left_child", 0), ("right_child", -7), ("feature", 64)],
)
def test_a_tree_that_points_nowhere_is_refused(field: str, value: int, tmp_path: Path) -> None:
    """scikit-learn would follow it, out of the memory of the tree or round and round."""
    file = tmp_path / "model.skops"
    classical.save(fit("random_forest", trees=2), file)
    with zipfile.ZipFile(file) as archive:
        arrays = {
            name: np.lib.format.read_array(archive.open(name))
            for name in archive.namelist()
            if name.endswith(".npy")
        }
    name, nodes = next((name, array.copy()) for name, array in arrays.items() if array.dtype.names)
    nodes[field][0] = value
    with (tmp_path / "nodes.npy").open("wb") as target:
        np.save(target, nodes)
    rewrite(file, name, (tmp_path / "nodes.npy").read_bytes())
    with pytest.raises(UserError, match="a tree has a node that points nowhere"):
        classical.load(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model\.skops"):
        classical.load(tmp_path / "model.skops")
