"""How sure is a score, and is one classifier better than another on the same images? Intervals and paired tests.

Arrays in, numbers out. `labels`, `first` and `second` are class indices of shape (images,): the truth and what each of
two models says. Differences are the first less the second. `groups`, of shape (images,), names what belongs together,
such as the images of one patient: whole groups are drawn and counted then, since their images say the same thing twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.sparse import csr_array
from scipy.stats import binomtest, norm

DRAWS = 10_000
SEED = 42
BLOCK = 2**23  # cells drawn at once: 64 MiB


@dataclass(frozen=True)
class Interval:
    """A difference of two scores and the ends of its confidence interval."""

    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class McNemar:
    """How often the first alone was right, how often the second alone, and the two-sided p-value."""

    gains: int
    losses: int
    p: float


def intervals(
    labels: np.ndarray,
    predicted: np.ndarray,
    classes: int,
    groups: Sequence | None = None,
    confidence: float = 0.95,
    draws: int = DRAWS,
    seed: int = SEED,
) -> dict[str, float]:
    """Return `accuracy_low, accuracy_high, macro_f1_low, macro_f1_high` of one model by the Bayesian bootstrap (Rubin 1981).

    A draw gives random weights to whole groups, and to one more of mean size, half of it right and half wrong in classes
    drawn by chance (Jeffreys' prior): so a model without an error on few images is not certain, and no class vanishes. Of
    images without groups the accuracy's interval is Jeffreys' (Brown, Cai and DasGupta 2001). The macro F1 is that of the
    classes that have images. Without images there is nothing to return.
    """
    if len(labels) == 0:
        return {}
    present = np.unique(labels)
    kinds, occurrences = _kinds(labels, predicted, predicted, classes, groups)
    prior, mean_size = _cells(present, classes), len(labels) / occurrences.sum()
    generator = np.random.default_rng(seed)
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
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(drawn), [tail, 1 - tail], axis=0)
    ends = {"low": np.minimum(low, seen), "high": np.maximum(high, seen)}
    return {
        f"{name}_{end}": float(ends[end][column])
        for column, name in enumerate(("accuracy", "macro_f1"))
        for end in ends
    }


def bootstrap_macro_f1(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    classes: int,
    groups: Sequence | None = None,
    confidence: float = 0.95,
    draws: int = DRAWS,
    seed: int = SEED,
) -> Interval:
    """Return the difference of the macro F1 with its paired percentile bootstrap interval (Efron 1979).

    An image counts only through its triple (truth, first, second), so a draw is a multinomial over the kinds of triples
    (of groups: over the kinds of groups) that occur. 100,000 images of four classes take 0.1 s, in groups of five 4 s.
    """
    kinds, occurrences = _kinds(labels, first, second, classes, groups)
    total = occurrences.sum()
    generator = np.random.default_rng(seed)
    step = max(1, BLOCK // len(occurrences))
    differences = []
    for start in range(0, draws, step):
        drawn = generator.multinomial(total, occurrences / total, size=min(step, draws - start))
        differences.append(_difference(drawn @ kinds, classes))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(differences), [tail, 1 - tail])
    return Interval(float(_difference(occurrences @ kinds, classes)), float(low), float(high))


def mcnemar(
    first_right: np.ndarray, second_right: np.ndarray, groups: Sequence | None = None
) -> McNemar:
    """Test whether one of two models is right more often: exact, for any number of images (McNemar 1947).

    The images on which just one is right are tosses of a fair coin if neither is better. A group is one toss: it counts
    for the model that is right on more of its images (the sign test).
    """
    difference = pd.Series(np.asarray(first_right, dtype=int) - np.asarray(second_right, dtype=int))
    if groups is not None:
        difference = difference.groupby(np.asarray(groups)).sum()
    gains, losses = int((difference > 0).sum()), int((difference < 0).sum())
    return McNemar(
        gains, losses, float(binomtest(gains, gains + losses).pvalue) if gains + losses else 1.0
    )


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Return p-values of several tests, raised so that any false alarm among them stays as rare as stated (Holm 1979)."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    raised = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return raised[np.argsort(order)]


def recall_differences(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    classes: Sequence[str],
    groups: Sequence | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Return one row per class: label, images, the recall of each model, and the difference with its lower limit.

    A limit above minus a margin shows that the first is not worse than the second by that margin. Where it has to hold
    in every class, no correction for the number of classes is due (Berger 1982, intersection-union test).
    """
    groups = np.arange(len(labels)) if groups is None else np.asarray(groups)
    rows = []
    for index, label in enumerate(classes):
        of_class = labels == index
        right, other = (first == index)[of_class], (second == index)[of_class]
        images = len(right)
        effect = _design_effect(right.astype(int) - other, groups[of_class])
        low = paired_low(
            (right & ~other).sum() / effect,
            (~right & other).sum() / effect,
            images / effect,
            confidence,
        )
        recalls = (float(right.mean()), float(other.mean())) if images else (0.0, 0.0)
        rows.append((label, images, *recalls, recalls[0] - recalls[1], low))
    return pd.DataFrame(rows, columns=["label", "images", "first", "second", "difference", "low"])


def paired_low(gains: float, losses: float, images: float, confidence: float = 0.95) -> float:
    """Return what (gains - losses) / images truly exceeds with this confidence, by the score test (Tango 1998); -1 without images.

    Honest for few images: with no difference seen on 16 images it is -0.14, where the textbook says 0.
    """
    z = norm.ppf(confidence)

    def excess(limit: float) -> float:
        """How far the statistic lies above the quantile if the true difference is `limit`."""
        linear = -gains - losses + (2 * images - gains + losses) * limit
        constant = -losses * limit * (1 - limit)
        share = (np.sqrt(max(linear**2 - 8 * images * constant, 0)) - linear) / (
            4 * images
        )  # of losses, most likely
        variance = images * (2 * share + limit * (1 - limit))
        return gains - losses - images * limit - z * np.sqrt(max(variance, 0))

    lowest, highest = -1 + 1e-9, (gains - losses) / images - 1e-9 if images else -1.0
    return (
        float(brentq(excess, lowest, highest)) if highest > lowest and excess(lowest) > 0 else -1.0
    )


def _kinds(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray, classes: int, groups: Sequence | None
) -> tuple[csr_array, np.ndarray]:
    """Return a row of counts, as `_difference` takes them, per kind of group, and how many groups are of that kind."""
    codes = (labels.astype(np.int64) * classes + first) * classes + second
    if groups is None:
        found, occurrences = np.unique(codes, return_counts=True)
        row, code = np.arange(len(found)), found
    else:
        table = pd.DataFrame({"group": np.asarray(groups), "code": codes}).sort_values(
            ["group", "code"]
        )
        kinds = table.groupby("group", sort=False).code.agg(tuple).value_counts(sort=False)
        occurrences = kinds.to_numpy()
        row = np.repeat(np.arange(len(kinds)), [len(kind) for kind in kinds.index])
        code = np.concatenate([np.asarray(kind) for kind in kinds.index])
    truth, one, other = code // classes**2, code // classes % classes, code % classes
    columns = [truth, classes + one, 2 * classes + other]
    hits = [
        (row[one == truth], (3 * classes + truth)[one == truth]),
        (row[other == truth], (4 * classes + truth)[other == truth]),
    ]
    rows = np.concatenate([row, row, row, *[hit for hit, _ in hits]])
    cells = rows, np.concatenate([*columns, *[column for _, column in hits]])
    return csr_array(
        (np.ones(len(rows), dtype=np.int64), cells), shape=(len(occurrences), 5 * classes)
    ), occurrences


def _cells(present: np.ndarray, classes: int) -> tuple[csr_array, csr_array]:
    """Return the counts, as `_kinds` has them, of one image of each kind: right ones, and wrong ones."""
    truth, answer = np.repeat(present, classes), np.tile(np.arange(classes), len(present))
    cells, _ = _kinds(truth, answer, answer, classes, None)
    return cells[truth == answer], cells[truth != answer]


def _accuracy_and_macro_f1(counts: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Return both, shape (draws, 2), from counts as `_kinds` has them, of one model twice."""
    images, answers, _, right, _ = np.split(counts, 5, axis=-1)
    f1 = 2 * right[:, present] / (images + answers)[:, present]
    return np.stack([right.sum(axis=-1) / images.sum(axis=-1), f1.mean(axis=-1)], axis=-1)


def _difference(counts: np.ndarray, classes: int) -> np.ndarray:
    """Macro F1 less macro F1 from, class by class: images, both predicted, both predicted rightly; the last axis is split."""
    images, one, other, one_right, other_right = np.split(counts, 5, axis=-1)
    scores = [
        2 * right / np.maximum(images + predicted, 1)
        for right, predicted in ((one_right, one), (other_right, other))
    ]  # a class neither there nor predicted scores 0, as in scikit-learn
    return (scores[0] - scores[1]).sum(axis=-1) / classes


def _design_effect(differences: np.ndarray, groups: np.ndarray) -> float:
    """Return how many images of these groups tell as much as one image by itself, at least 1 (Rao and Scott 1992)."""
    members = pd.Series(
        differences - differences.mean() if len(differences) else differences
    ).groupby(groups)
    alone = float((members.obj**2).sum())
    if alone == 0:
        return max(1.0, len(differences) / max(1, members.ngroups))
    return max(1.0, float((members.sum() ** 2).sum()) / alone)
