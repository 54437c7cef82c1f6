"""scikit-learn classifiers: from float32 features to probabilities, saved by skops.

The features are flattened pixels or the features of a backbone. This module needs no TensorFlow.
With n images of d features, the costs grow as follows:

- random_forest: time with trees x n log n x sqrt(d), file size with trees x n. The features are in
  memory once.
- logistic_regression: time with steps x n x d, file size with classes x d. The features are in
  memory twice.
- linear_svm, rbf_svm: time with n^2 x d for six fits. With two threads about ten copies of the
  features are in memory. File size grows with support vectors x d; if the classes are hard to
  separate, more than half of the images are support vectors. Use SVMs with pooled features or small
  images.
"""

import io
import logging
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from joblib import parallel_config
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree._tree import Tree
from threadpoolctl import threadpool_limits

from tasks.errors import UserError
from tasks.modeling.keras_files import DAMAGES
from tasks.params.architectures import Classical

FOLDS = 5  # for the calibration, as libsvm's own has
MAX_STEPS = 5000  # steps of logistic regression

# The types that skops does not trust by itself. `_check_trees` checks the contents of the trees.
TRUSTED = [
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.tree._tree.Tree",
]
CLASSIFIERS = (CalibratedClassifierCV, LogisticRegression, RandomForestClassifier)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Examples:
    """Training images: features (images, d), class indices and weights (images,).

    Images with equal `groups` are duplicates or of one patient; None means that all images are
    independent.
    """

    features: NDArray[np.float32]
    targets: NDArray[Any]
    weights: NDArray[Any]
    groups: NDArray[Any] | None = None


def flatten(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return pixels (images, height, width, channels) as features (images, d) from 0 to 1."""
    return np.divide(pixels.reshape(len(pixels), -1), np.float32(255), dtype=np.float32)


def fit(structure: Classical, examples: Examples, seed: int, threads: int) -> Pipeline:
    """Fit a classifier. Equal arguments give an equal classifier.

    All classifiers except the forest take standardised features. Logistic regression and the forest
    have probabilities of their own. The decisions of an SVM are calibrated by Platt's sigmoids, one
    class against the rest. The sigmoids are fitted to decisions of cross-validation, the SVM itself
    to all images. scikit-learn 1.9 recommends this instead of the deprecated
    `SVC(probability=True)`:
    https://scikit-learn.org/stable/modules/generated/sklearn.svm.SVC.html.

    With many classes the sigmoids are too cautious. A temperature was closer there, but far too
    confident if the folds contained no error. Groups stay in one fold, because duplicates would
    make the sigmoids too confident. Raises `UserError` if a class has too few images.
    """
    _check_targets(examples.targets)
    model = _build(structure, seed)
    if isinstance(model, SVC):
        model = CalibratedClassifierCV(model, cv=_split_folds(examples, seed), ensemble=False)
    scaler = [] if isinstance(model, RandomForestClassifier) else [("scaler", StandardScaler())]
    pipeline = Pipeline([*scaler, ("classifier", model)])
    with parallel_config("threading", n_jobs=threads), threadpool_limits(threads):
        pipeline.fit(
            examples.features, examples.targets, classifier__sample_weight=examples.weights
        )
    if isinstance(model, CalibratedClassifierCV):
        model.cv = None  # the folds are not part of the saved model
    if isinstance(model, LogisticRegression) and model.n_iter_.max() >= MAX_STEPS:
        log.warning(
            "logistic regression has not converged after %d steps: lower regularization", MAX_STEPS
        )
    return pipeline


def predict(estimator: Pipeline, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return probabilities (images, classes), with columns in the order of the class indices."""
    return estimator.predict_proba(features).astype(np.float32)


def count_parameters(estimator: Pipeline) -> int:
    """Count the numbers that were learnt from the targets, so without means and scales.

    - forest: its nodes;
    - linear classifiers: coefficients and intercepts, for an SVM those of each pair of classes;
    - kernel SVM: the features of its support vectors, their coefficients, and the intercepts;
    - each sigmoid: slope and offset.
    """
    model = estimator[-1]
    if isinstance(model, RandomForestClassifier):
        return sum(tree.tree_.node_count for tree in model.estimators_)
    if isinstance(model, LogisticRegression):
        return model.coef_.size + model.intercept_.size
    (calibrated,) = model.calibrated_classifiers_
    svm = calibrated.estimator
    linear = svm.kernel == "linear"
    learnt = svm.coef_.size if linear else svm.support_vectors_.size + svm.dual_coef_.size
    return learnt + svm.intercept_.size + 2 * len(calibrated.calibrators)


def save(estimator: Pipeline, file: Path) -> None:
    """Write a skops file. Equal classifiers give equal files.

    So the file has no dates, and objects are numbered in the order in which they appear.
    """
    import skops.io  # takes three seconds, and networks do not need it

    numbers: dict[str, int] = {}  # by address in memory
    with (
        zipfile.ZipFile(io.BytesIO(skops.io.dumps(estimator))) as source,
        zipfile.ZipFile(file, "w") as target,
    ):
        schema = re.sub(
            r'("(?:__id__|file)": "?)(\d+)',
            lambda match: f"{match[1]}{numbers.setdefault(match[2], len(numbers) + 1)}",
            source.read("schema.json").decode(),
        )
        target.writestr(zipfile.ZipInfo("schema.json"), schema, zipfile.ZIP_DEFLATED)
        arrays = {
            numbers[Path(name).stem]: name for name in source.namelist() if name.endswith(".npy")
        }
        for number in sorted(arrays):
            entry, content = zipfile.ZipInfo(f"{number}.npy"), source.read(arrays[number])
            target.writestr(entry, content, zipfile.ZIP_DEFLATED)


def load(file: Path) -> Pipeline:
    """Read a classifier that `save` wrote. Raises `UserError` for any other content."""
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    expected = "expected a classifier that training wrote; train it again"
    try:
        estimator = skops.io.load(file, trusted=TRUSTED)
    except UntrustedTypesFoundException as error:
        raise UserError(f"{file} is refused: {str(error).splitlines()[0]} {expected}") from error
    except DAMAGES as error:
        raise UserError(f"{file} is not a complete skops file ({error!r}): {expected}") from error
    if not isinstance(estimator, Pipeline) or not isinstance(estimator[-1], CLASSIFIERS):
        raise UserError(f"{file} contains a {type(estimator).__name__}: {expected}")
    if isinstance(estimator[-1], RandomForestClassifier):
        _check_trees(estimator[-1], file)
    return estimator


def _check_targets(targets: NDArray[Any]) -> None:
    found = np.unique(targets).tolist()
    if len(found) < 2 or found != list(range(len(found))):
        raise UserError(
            "expected training images of every class, and at least two classes; received images of "
            f"the class indices {found}"
        )


def _build(structure: Classical, seed: int) -> RandomForestClassifier | LogisticRegression | SVC:
    strength = structure.regularization
    if structure.classifier == "random_forest":
        return RandomForestClassifier(structure.trees, random_state=seed)
    if structure.classifier == "logistic_regression":
        return LogisticRegression(C=strength, max_iter=MAX_STEPS)
    # libsvm for the linear SVM too: on 64x64 pixels it finished while liblinear (LinearSVC) was far
    # from convergence.
    return SVC(C=strength, kernel={"linear_svm": "linear", "rbf_svm": "rbf"}[structure.classifier])


def _split_folds(examples: Examples, seed: int) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Return the rows that train and validate in each fold of the calibration."""
    targets = examples.targets
    groups = np.arange(len(targets)) if examples.groups is None else examples.groups
    least = min(len(np.unique(groups[targets == target])) for target in np.unique(targets))
    if least < 2:
        raise UserError(
            "an SVM needs at least two training images of each class that are not duplicates, "
            "because its calibration splits them into folds"
        )
    folds = StratifiedGroupKFold(min(FOLDS, least), shuffle=True, random_state=seed)
    return list(folds.split(examples.features, targets, groups))


def _check_trees(forest: RandomForestClassifier, file: Path) -> None:
    """Refuse a tree with a node that points outside or back: prediction would follow it."""
    for tree in (estimator.tree_ for estimator in forest.estimators_):
        if not (tree.node_count and tree.n_features == forest.n_features_in_ and _is_closed(tree)):
            raise UserError(
                f"{file} is refused: a tree has a node that points nowhere; train it again"
            )


def _is_closed(tree: Tree) -> bool:
    places, inner = np.arange(tree.node_count), tree.children_left != -1
    children = (tree.children_left[inner], tree.children_right[inner])
    within = all(((places[inner] < child) & (child < tree.node_count)).all() for child in children)
    known = (tree.feature[inner] >= 0) & (tree.feature[inner] < tree.n_features)
    return within and bool(known.all())
