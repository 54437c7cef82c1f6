"""scikit-learn classifiers from float32 features, flattened pixels or those of a backbone, to probabilities; kept by skops.

Needs no TensorFlow. What grows with n images of d features:

- random_forest: time with trees x n log n x sqrt(d), the file with trees x n; the features are held once.
- logistic_regression: time with steps x n x d, the file with classes x d; the features are held twice.
- linear_svm, rbf_svm: time with n^2 x d, for six fits; some ten times the features are held with two threads; the file
  with support vectors (more than half of the images where the classes are hard to part) x d. For pooled features and
  small images.
"""

import io
import logging
import re
import zipfile
import zlib
from pathlib import Path

import numpy as np
from joblib import parallel_config
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
from tasks.params.architectures import Classical

FOLDS = 5  # of the calibration, as libsvm's own has
STEPS = 5000  # at most, of logistic regression

# What skops does not trust by itself and these classifiers need. `_check_trees` looks into the trees.
TRUSTED = [
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.tree._tree.Tree",
]
KINDS = (CalibratedClassifierCV, LogisticRegression, RandomForestClassifier)
# What reading a damaged or foreign file raises.
DAMAGES = (
    zipfile.BadZipFile, zlib.error, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, ImportError,
    NotImplementedError, OverflowError, RecursionError, MemoryError,
)  # fmt: skip

log = logging.getLogger(__name__)


def flatten(pixels: np.ndarray) -> np.ndarray:
    """Return `uint8` pixels (images, height, width, channels) as features (images, d), float32 from 0 to 1."""
    return np.divide(pixels.reshape(len(pixels), -1), np.float32(255), dtype=np.float32)


def fit(
    structure: Classical,
    features: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    seed: int,
    threads: int,
    groups: np.ndarray | None = None,
) -> Pipeline:
    """Return a classifier of `features` (images, d) fitted to `targets`, class indices, and `weights`, both (images,).

    Features are standardised, but for the forest. Logistic regression and the forest have probabilities of their own.
    The decisions of an SVM are calibrated by Platt's sigmoids, one class against the rest, fitted to decisions of
    cross-validation; the SVM itself is fitted to all images. scikit-learn 1.9 recommends so in place of the deprecated
    `SVC(probability=True)`: https://scikit-learn.org/stable/modules/generated/sklearn.svm.SVC.html. With many classes
    they are too modest; a temperature was closer there, and far too sure where the folds held no error. Images of equal
    `groups` stay in one fold, else copies would make the sigmoids too sure. Equal arguments give an equal classifier.
    Raises `UserError` where a class has too few images.
    """
    _check_targets(targets)
    model = _model(structure, seed)
    if isinstance(model, SVC):
        model = CalibratedClassifierCV(
            model, cv=_folds(features, targets, groups, seed), ensemble=False
        )
    scaler = [] if isinstance(model, RandomForestClassifier) else [("scaler", StandardScaler())]
    pipeline = Pipeline([*scaler, ("classifier", model)])
    with parallel_config("threading", n_jobs=threads), threadpool_limits(threads):
        pipeline.fit(features, targets, classifier__sample_weight=weights)
    if isinstance(model, CalibratedClassifierCV):
        model.cv = None  # the folds are no part of what was learnt
    if isinstance(model, LogisticRegression) and model.n_iter_.max() >= STEPS:
        log.warning(
            "logistic regression has not converged after %d steps: lower regularization", STEPS
        )
    return pipeline


def probabilities(estimator: Pipeline, features: np.ndarray) -> np.ndarray:
    """Return float32 probabilities (images, classes), columns in the order of the class indices."""
    return estimator.predict_proba(features).astype(np.float32)


def parameters(estimator: Pipeline) -> int:
    """Count what was learnt from the targets.

    Of a forest its nodes; of linear classifiers coefficients and intercepts, of an SVM for each pair of classes; of a
    kernel SVM the features of its support vectors, their coefficients and the intercepts; of every sigmoid slope and
    offset. Not means and scales.
    """
    model = estimator[-1]
    if isinstance(model, RandomForestClassifier):
        return sum(tree.tree_.node_count for tree in model.estimators_)
    if isinstance(model, LogisticRegression):
        return model.coef_.size + model.intercept_.size
    (calibrated,) = model.calibrated_classifiers_
    svm = calibrated.estimator
    learnt = (
        svm.coef_.size
        if svm.kernel == "linear"
        else svm.support_vectors_.size + svm.dual_coef_.size
    )
    return learnt + svm.intercept_.size + 2 * len(calibrated.calibrators)


def save(estimator: Pipeline, file: Path) -> None:
    """Write a skops file; equal classifiers give equal files: no dates, and objects are numbered in order of appearance."""
    import skops.io  # costs three seconds, which networks do without

    numbers: dict[str, int] = {}  # of addresses in memory
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
            target.writestr(
                zipfile.ZipInfo(f"{number}.npy"), source.read(arrays[number]), zipfile.ZIP_DEFLATED
            )


def load(file: Path) -> Pipeline:
    """Read what `save` wrote. Raises `UserError` for anything else than such a classifier."""
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        estimator = skops.io.load(file, trusted=TRUSTED)
    except UntrustedTypesFoundException as error:
        found = str(error).splitlines()[0]
        raise UserError(
            f"{file} is refused: {found} Expected a classifier that training wrote; train it again"
        ) from error
    except DAMAGES as error:
        raise UserError(
            f"{file} is no whole skops file ({error!r}): expected what training wrote; train it again"
        ) from error
    if not isinstance(estimator, Pipeline) or not isinstance(estimator[-1], KINDS):
        raise UserError(
            f"{file} holds a {type(estimator).__name__}: expected a classifier that training wrote; train it again"
        )
    if isinstance(estimator[-1], RandomForestClassifier):
        _check_trees(estimator[-1], file)
    return estimator


def _check_targets(targets: np.ndarray) -> None:
    found = np.unique(targets).tolist()
    if len(found) < 2 or found != list(range(len(found))):
        raise UserError(
            f"expected training images of every class, at least two, received those of the class indices {found}"
        )


def _model(structure: Classical, seed: int) -> RandomForestClassifier | LogisticRegression | SVC:
    strength = structure.regularization
    if structure.classifier == "random_forest":
        return RandomForestClassifier(structure.trees, random_state=seed)
    if structure.classifier == "logistic_regression":
        return LogisticRegression(C=strength, max_iter=STEPS)
    # libsvm for the linear one too: on 64x64 pixels it was done while liblinear (LinearSVC) was far from converged
    return SVC(C=strength, kernel={"linear_svm": "linear", "rbf_svm": "rbf"}[structure.classifier])


def _folds(
    features: np.ndarray, targets: np.ndarray, groups: np.ndarray | None, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    groups = np.arange(len(targets)) if groups is None else groups
    least = min(len(np.unique(groups[targets == target])) for target in np.unique(targets))
    if least < 2:
        raise UserError(
            "an SVM needs at least two training images of each class that are no copies: its calibration parts them"
        )
    return list(
        StratifiedGroupKFold(min(FOLDS, least), shuffle=True, random_state=seed).split(
            features, targets, groups
        )
    )


def _check_trees(forest: RandomForestClassifier, file: Path) -> None:
    """Refuse a node that points out of its tree, or back: prediction follows it unchecked."""
    for tree in (estimator.tree_ for estimator in forest.estimators_):
        if not (tree.node_count and tree.n_features == forest.n_features_in_ and _is_closed(tree)):
            raise UserError(
                f"{file} is refused: a tree has a node that points nowhere; train it again"
            )


def _is_closed(tree: Tree) -> bool:
    places, inner = np.arange(tree.node_count), tree.children_left != -1
    children = (tree.children_left[inner], tree.children_right[inner])
    within = all(((places[inner] < child) & (child < tree.node_count)).all() for child in children)
    return within and bool(
        ((tree.feature[inner] >= 0) & (tree.feature[inner] < tree.n_features)).all()
    )
