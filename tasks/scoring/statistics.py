"""Give intervals for a model's scores, and test one model against another. Arrays in, numbers out.

Images of one group, such as a patient, are not independent. So all functions draw and count whole
groups if they are given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.sparse import csr_array
from scipy.stats import binomtest, norm

from tasks.scoring.predictions import Labels

DRAWS = 10_000
SEED = 42
CONFIDENCE = 0.95
BLOCK = 2**23  # cells drawn at once: 64 MiB

Groups = Sequence[Any] | NDArray[Any]  # the group of each image, shape (images,)


@dataclass(frozen=True)
class Pair:
    """The labels of some images, and what two models predict for them."""

    labels: Labels
    first: Labels
    second: Labels
    classes: int
    groups: Groups | None = None


@dataclass(frozen=True)
class Interval:
    """A difference of two scores, the first minus the second, and its confidence interval."""

    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class McNemar:
    """How often only the first model is right, how often only the second, and the p-value."""

    gains: int
    losses: int
    p: float


def bootstrap_intervals(
    labels: Labels,
    predicted: Labels,
    classes: int,
    groups: Groups | None = None,
    draws: int = DRAWS,
) -> dict[str, float]:
    """Return the ends of the 95 % intervals of accuracy and macro F1, by the Bayesian bootstrap.

    Each draw gives random weights to the groups (Rubin 1981). It adds one group of mean size, half
    right and half wrong in random classes: Jeffreys' prior. So a model without an error on few
    images is not certain, and no class vanishes. Without groups, the interval of the accuracy is
    Jeffreys' interval (Brown, Cai and DasGupta 2001). The macro F1 covers the classes that have
    images. Returns {} if there are no images.
    """
    if len(labels) == 0:
        return {}
    pair = Pair(labels, predicted, predicted, classes, groups)
    drawn, seen = _draw_scores(pair, draws)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    ends = {"low": np.minimum(low, seen), "high": np.maximum(high, seen)}
    return {
        f"{name}_{end}": float(ends[end][column])
        for column, name in enumerate(("accuracy", "macro_f1"))
        for end in ends
    }


def bootstrap_difference(
    pair: Pair, confidence: float = CONFIDENCE, draws: int = DRAWS, seed: int = SEED
) -> Interval:
    """Return the difference of the macro F1 and its paired percentile bootstrap (Efron 1979).

    Images with the same label and the same two predictions are of one kind, and so are groups with
    the same images. A draw is a multinomial over the kinds, which is fast: 100,000 images of four
    classes take 0.1 s, and 4 s in groups of five.
    """
    kinds, occurrences = _count_kinds(pair)
    total = occurrences.sum()
    generator = np.random.default_rng(seed)
    step = max(1, BLOCK // len(occurrences))
    differences = []
    for start in range(0, draws, step):
        drawn = generator.multinomial(total, occurrences / total, size=min(step, draws - start))
        differences.append(_difference(drawn @ kinds, pair.classes))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(differences), [tail, 1 - tail])
    seen = float(_difference(occurrences @ kinds, pair.classes))
    return Interval(seen, float(low), float(high))


def run_mcnemar(
    first_right: NDArray[np.bool_], second_right: NDArray[np.bool_], groups: Groups | None = None
) -> McNemar:
    """Test whether one of two models is right more often, exactly (McNemar 1947).

    If neither is better, the images that only one of them gets right are tosses of a fair coin. A
    group is one toss, for the model that is right on more of its images (sign test).
    """
    difference = pd.Series(np.asarray(first_right, dtype=int) - np.asarray(second_right, dtype=int))
    if groups is not None:
        difference = difference.groupby(np.asarray(groups)).sum()
    gains, losses = int((difference > 0).sum()), int((difference < 0).sum())
    p = float(binomtest(gains, gains + losses).pvalue) if gains + losses else 1.0
    return McNemar(gains, losses, p)


def adjust_by_holm(p_values: Sequence[float]) -> NDArray[np.float64]:
    """Adjust the p-values of several tests for their number (Holm 1979)."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    adjusted = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted[np.argsort(order)]


def compare_recalls(
    pair: Pair, names: Sequence[str], confidence: float = CONFIDENCE
) -> pd.DataFrame:
    """Return label, images, both recalls, their difference and its lower limit for each class.

    A limit above -m shows that the recall of the first model is lower by less than m. If this has
    to hold in every class, the number of classes needs no correction (Berger 1982).
    """
    groups = np.arange(len(pair.labels)) if pair.groups is None else np.asarray(pair.groups)
    rows = []
    for index, label in enumerate(names):
        of_class = pair.labels == index
        right, other = (pair.first == index)[of_class], (pair.second == index)[of_class]
        effect = _design_effect(right.astype(int) - other, groups[of_class])
        gains, losses = (right & ~other).sum(), (~right & other).sum()
        low = find_lower_limit(gains / effect, losses / effect, len(right) / effect, confidence)
        recalls = (float(right.mean()), float(other.mean())) if len(right) else (0.0, 0.0)
        rows.append((label, len(right), *recalls, recalls[0] - recalls[1], low))
    return pd.DataFrame(rows, columns=["label", "images", "first", "second", "difference", "low"])


def find_lower_limit(
    gains: float, losses: float, images: float, confidence: float = CONFIDENCE
) -> float:
    """Return the lower limit of (gains - losses) / images, by the score test (Tango 1998).

    The limit holds for few images too. If 16 images show no difference, it is -0.14; the textbook
    formula gives 0. Returns -1 if there are no images.
    """
    z = norm.ppf(confidence)

    def excess(limit: float) -> float:
        """Return how far the statistic is above its quantile if the true difference is `limit`."""
        linear = -gains - losses + (2 * images - gains + losses) * limit
        constant = -losses * limit * (1 - limit)
        likely_losses = (np.sqrt(max(linear**2 - 8 * images * constant, 0)) - linear) / (4 * images)
        variance = images * (2 * likely_losses + limit * (1 - limit))
        return float(gains - losses - images * limit - z * np.sqrt(max(variance, 0)))

    lowest, highest = -1 + 1e-9, (gains - losses) / images - 1e-9 if images else -1.0
    has_root = highest > lowest and excess(lowest) > 0
    return float(brentq(excess, lowest, highest)) if has_root else -1.0


def _draw_scores(pair: Pair, draws: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return accuracy and macro F1 of the first model, drawn (draws, 2) and as observed (2,)."""
    present = np.unique(pair.labels)
    kinds, occurrences = _count_kinds(pair)
    prior, mean_size = _count_prior(present, pair.classes), len(pair.labels) / occurrences.sum()
    generator = np.random.default_rng(SEED)
    step = max(1, BLOCK // max(len(occurrences), kinds.shape[1]))
    drawn = []
    for start in range(0, draws, step):
        count = min(step, draws - start)
        weighed = generator.standard_gamma(occurrences, (count, len(occurrences))) @ kinds
        for cells in prior:
            chosen = cells[generator.integers(cells.shape[0], size=count)].toarray()
            weighed += mean_size * generator.standard_gamma(0.5, (count, 1)) * chosen
        drawn.append(_accuracy_and_macro_f1(weighed, present))
    seen = _accuracy_and_macro_f1(occurrences[None] @ kinds, present)[0]
    return np.concatenate(drawn), seen


def _count_kinds(pair: Pair) -> tuple[csr_array, NDArray[np.int64]]:
    """Return a row of counts for each kind of group, and how many groups are of that kind.

    A row has five blocks with a column for each class: its images, the predictions of either model,
    and the correct predictions of either model.
    """
    classes = pair.classes
    codes = (pair.labels.astype(np.int64) * classes + pair.first) * classes + pair.second
    row, code, occurrences = _find_kinds(codes, pair.groups)
    truth, one, other = code // classes**2, code // classes % classes, code % classes
    blocks = [(row, truth), (row, classes + one), (row, 2 * classes + other)]
    for block, predicted in ((3, one), (4, other)):
        right = predicted == truth
        blocks.append((row[right], (block * classes + truth)[right]))
    rows, columns = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    ones, shape = np.ones(len(rows), dtype=np.int64), (len(occurrences), 5 * classes)
    return csr_array((ones, (rows, columns)), shape=shape), occurrences


def _find_kinds(
    codes: NDArray[np.int64], groups: Groups | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return kind and code of each image of the kinds, and how many groups are of each kind."""
    if groups is None:
        found, occurrences = np.unique(codes, return_counts=True)
        return np.arange(len(found)), found, occurrences
    table = pd.DataFrame({"group": np.asarray(groups), "code": codes})
    of_group = table.sort_values(["group", "code"]).groupby("group", sort=False).code
    kinds = of_group.agg(tuple).value_counts(sort=False)
    row = np.repeat(np.arange(len(kinds)), [len(kind) for kind in kinds.index])
    code = np.concatenate([np.asarray(kind) for kind in kinds.index])
    return row, code, kinds.to_numpy()


def _count_prior(present: Labels, classes: int) -> tuple[csr_array, csr_array]:
    """Return the counts of a single image of each kind, correct kinds and wrong kinds apart."""
    truth, predicted = np.repeat(present, classes), np.tile(np.arange(classes), len(present))
    cells, _ = _count_kinds(Pair(truth, predicted, predicted, classes))
    return cells[truth == predicted], cells[truth != predicted]


def _accuracy_and_macro_f1(counts: NDArray[np.float64], present: Labels) -> NDArray[np.float64]:
    """Return accuracy and macro F1 of each draw, shape (draws, 2), from counts of one model."""
    images, answers, _, right, _ = np.split(counts, 5, axis=-1)
    f1 = 2 * right[:, present] / (images + answers)[:, present]
    return np.stack([right.sum(axis=-1) / images.sum(axis=-1), f1.mean(axis=-1)], axis=-1)


def _difference(counts: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Return the difference of the macro F1 of each draw.

    As in scikit-learn, a class without images that is never predicted scores 0.
    """
    images, one, other, one_right, other_right = np.split(counts, 5, axis=-1)
    scores = [
        2 * right / np.maximum(images + predicted, 1)
        for right, predicted in ((one_right, one), (other_right, other))
    ]
    difference: NDArray[np.float64] = (scores[0] - scores[1]).sum(axis=-1) / classes
    return difference


def _design_effect(differences: NDArray[np.int64], groups: NDArray[Any]) -> float:
    """Return how many grouped images equal one independent image, >= 1 (Rao and Scott 1992)."""
    members = pd.Series(
        differences - differences.mean() if len(differences) else differences
    ).groupby(groups)
    alone = float((members.obj**2).sum())
    if alone == 0:
        return max(1.0, len(differences) / max(1, members.ngroups))
    return max(1.0, float((members.sum() ** 2).sum()) / alone)
