"""Intervals and tests agree with the textbook, with slower ways, and with simulations."""

import time

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import beta, norm
from sklearn.metrics import f1_score

from tasks.scoring.statistics import (
    Pair,
    adjust_by_holm,
    bootstrap_difference,
    bootstrap_intervals,
    compare_recalls,
    find_lower_limit,
    run_mcnemar,
)


def answers(
    images: int, classes: int, accuracies: tuple[float, float], seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw labels and what two models say of them, each right with its own probability."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, images)
    said = [
        np.where(generator.random(images) < right, labels, generator.integers(0, classes, images))
        for right in accuracies
    ]
    return labels, *said


def macro_f1(labels: np.ndarray, predicted: np.ndarray, classes: int) -> float:
    """Macro F1 the plain way, in a hundredth of the time that scikit-learn takes."""
    confusion = np.bincount(labels * classes + predicted, minlength=classes**2)
    confusion = confusion.reshape(classes, classes)
    sums = confusion.sum(axis=0) + confusion.sum(axis=1)
    return float(np.mean(2 * np.diag(confusion) / np.maximum(sums, 1)))


def covered(sizes: list[int], accuracy: float, sets: int) -> np.ndarray:
    """Return how often the 95 % intervals hold the true accuracy and macro F1.

    The rows are by image, and by group if the two differ. A group has as many images as `sizes`
    says. They are all right, or all predicted as one other class.
    """
    generator = np.random.default_rng(5)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    ways = (None,) if max(sizes) == 1 else (None, groups)
    hits = np.zeros((len(ways), 2))
    for _ in range(sets):
        truth = generator.integers(0, 3, len(sizes))
        wrong = generator.random(len(sizes)) > accuracy
        said = np.where(wrong, (truth + generator.integers(1, 3, len(sizes))) % 3, truth)
        for row, together in enumerate(ways):
            ends = bootstrap_intervals(truth[groups], said[groups], 3, together, draws=800)
            for column, name in enumerate(
                ("accuracy", "macro_f1")
            ):  # classes are alike, so both have the same truth
                hits[row, column] += ends[f"{name}_low"] <= accuracy <= ends[f"{name}_high"]
    return hits / sets


@pytest.mark.slow
@pytest.mark.parametrize("accuracy", [0.7, 0.97])
def test_an_interval_holds_the_truth_as_often_as_it_says(accuracy: float) -> None:
    """95 of 100; 400 sets miss that by no more than 3."""
    assert np.abs(covered([1] * 100, accuracy, 400) - 0.95).max() <= 0.03


@pytest.mark.slow
def test_an_interval_of_groups_holds_the_truth_and_that_of_their_images_does_not() -> None:
    by_images, by_groups = covered([1, 3, 5, 7] * 20, 0.8, 200)
    assert by_groups.min() > 0.9 and by_images.max() < 0.8


def test_the_accuracys_interval_is_that_of_jeffreys() -> None:
    for right, images in ((1, 4), (49, 50), (700, 1000)):
        labels = np.arange(images) % 2
        ends = bootstrap_intervals(
            labels, np.where(np.arange(images) < right, labels, 1 - labels), 2
        )
        expected = beta.ppf([0.025, 0.975], right + 0.5, images - right + 0.5)
        assert [ends["accuracy_low"], ends["accuracy_high"]] == pytest.approx(expected, abs=0.01)


def test_no_model_is_certain() -> None:
    """All right, all wrong, one image: the interval reaches the score, and not only that."""
    labels = np.arange(10) % 2
    best, worst, single = (
        bootstrap_intervals(labels, labels, 2),
        bootstrap_intervals(labels, 1 - labels, 2),
        bootstrap_intervals(labels[:1], labels[:1], 2),
    )
    assert best["accuracy_high"] == best["macro_f1_high"] == 1
    assert 0.7 < best["accuracy_low"] < 0.85 and 0.7 < best["macro_f1_low"] < 0.85
    assert (
        worst["accuracy_low"] == worst["macro_f1_low"] == 0 and 0.15 < worst["accuracy_high"] < 0.3
    )
    assert (
        0.1 < single["accuracy_low"] < 0.2
        and single["accuracy_high"] == single["macro_f1_high"] == 1
    )
    assert bootstrap_intervals(labels[:0], labels[:0], 2) == {}


def test_a_class_without_images_leaves_the_interval() -> None:
    """The macro F1 is that of the two other classes, even if the class is predicted."""
    labels = np.arange(100) % 2
    said = np.where(
        np.arange(100) < 20, 2, labels
    )  # each of the two has recall 0.8 and precision 1
    ends = bootstrap_intervals(labels, said, 3)
    assert ends["macro_f1_low"] < 8 / 9 < ends["macro_f1_high"] and ends["macro_f1_low"] > 0.8


def test_groups_of_equal_size_tell_as_much_as_their_number() -> None:
    labels, said, _ = answers(120, 3, (0.8, 0.7))
    often = bootstrap_intervals(
        np.repeat(labels, 5), np.repeat(said, 5), 3, np.repeat(np.arange(120), 5)
    )
    assert often == pytest.approx(bootstrap_intervals(labels, said, 3), abs=0.01)


def test_the_intervals_are_the_same_each_time_and_for_any_order_of_images() -> None:
    labels, said, _ = answers(150, 4, (0.8, 0.7))
    groups = np.array([f"g{number // 2}" for number in range(150)])
    assert bootstrap_intervals(labels, said, 4, groups) == bootstrap_intervals(
        labels[::-1], said[::-1], 4, groups[::-1]
    )


def test_the_difference_is_that_of_scikit_learns_scores() -> None:
    labels, first, second = answers(200, 5, (0.8, 0.6))
    labels[labels == 4], first[first == 4], second[second == 4] = (
        0,
        0,
        0,
    )  # a class that nothing has
    interval = bootstrap_difference(Pair(labels, first, second, 5), draws=10)
    options = {"labels": np.arange(5), "average": "macro", "zero_division": 0}
    scores = [f1_score(labels, said, **options) for said in (first, second)]
    assert interval.difference == pytest.approx(scores[0] - scores[1])
    assert scores == pytest.approx([macro_f1(labels, said, 5) for said in (first, second)])


def test_the_interval_is_that_of_drawing_images_one_by_one() -> None:
    labels, first, second = answers(80, 3, (0.8, 0.6))
    generator = np.random.default_rng(7)
    drawn = [generator.integers(0, 80, 80) for _ in range(600)]
    slow = [
        macro_f1(labels[rows], first[rows], 3) - macro_f1(labels[rows], second[rows], 3)
        for rows in drawn
    ]
    fast = bootstrap_difference(Pair(labels, first, second, 3))
    assert [fast.low, fast.high] == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=0.03)


def test_the_interval_is_the_same_each_time_and_for_any_order_of_images() -> None:
    labels, first, second = answers(150, 4, (0.8, 0.7))
    turned = bootstrap_difference(Pair(labels[::-1], first[::-1], second[::-1], 4))
    assert turned == bootstrap_difference(Pair(labels, first, second, 4))
    assert bootstrap_difference(Pair(labels, first, second, 4), seed=1) != turned


def test_a_model_does_not_differ_from_itself() -> None:
    labels, first, _ = answers(100, 4, (0.8, 0.7))
    interval = bootstrap_difference(Pair(labels, first, first, 4))
    assert (interval.difference, interval.low, interval.high) == (0, 0, 0)
    assert run_mcnemar(first == labels, first == labels) == run_mcnemar(
        labels == labels, labels == labels
    )
    assert run_mcnemar(first == labels, first == labels).p == 1


def test_repeated_images_add_nothing_when_they_are_grouped() -> None:
    """Each image five times is no more evidence than once."""
    once = answers(120, 3, (0.8, 0.65))
    often = [np.repeat(column, 5) for column in once]
    groups = np.repeat([f"p{number}" for number in range(120)], 5)
    single, grouped, naive = (
        bootstrap_difference(Pair(*once, 3)),
        bootstrap_difference(Pair(*often, 3, groups)),
        bootstrap_difference(Pair(*often, 3)),
    )
    assert [grouped.low, grouped.high] == pytest.approx([single.low, single.high], abs=0.01)
    assert naive.high - naive.low < 0.6 * (single.high - single.low)
    rights = [said == once[0] for said in once[1:]]
    assert run_mcnemar(*[np.repeat(right, 5) for right in rights], groups) == run_mcnemar(*rights)
    classes = ["a", "b", "c"]
    assert compare_recalls(Pair(*often, 3, groups), classes).low.tolist() == pytest.approx(
        compare_recalls(Pair(*once, 3), classes).low.tolist()
    )


def test_100_000_images_take_seconds() -> None:
    labels, first, second = answers(100_000, 4, (0.9, 0.89))
    started = time.monotonic()
    interval = bootstrap_difference(Pair(labels, first, second, 4))
    assert time.monotonic() - started < 5  # 0.1 s when nothing else runs
    assert interval.low < interval.difference < interval.high < interval.low + 0.01
    started = time.monotonic()
    ends = bootstrap_intervals(labels, first, 4)
    assert time.monotonic() - started < 5  # 0.1 s when nothing else runs
    assert (
        ends["accuracy_low"]
        < (first == labels).mean()
        < ends["accuracy_high"]
        < ends["accuracy_low"] + 0.01
    )


def test_mcnemar_is_a_coin_tossed() -> None:
    first = np.array([True] * 10 + [False] * 2 + [True] * 30 + [False] * 5)
    second = np.array([False] * 10 + [True] * 2 + [True] * 30 + [False] * 5)
    result = run_mcnemar(first, second)
    assert (result.gains, result.losses) == (10, 2)
    assert result.p == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert run_mcnemar(second, first).p == result.p


def test_holm() -> None:
    assert adjust_by_holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx(
        [0.03, 0.06, 0.06, 0.02]
    )  # the example of R's p.adjust
    assert adjust_by_holm([0.9, 0.8]).tolist() == [1, 1]


@pytest.mark.parametrize("counts", [(0, 0, 16), (3, 9, 40), (12, 1, 50)])
def test_the_lower_limit_is_where_the_likelihood_puts_it(counts: tuple[int, int, int]) -> None:
    gains, losses, images = counts
    low = find_lower_limit(gains, losses, images)

    def unlikelihood(share: float) -> float:
        shares = np.array([share + low, share, 1 - 2 * share - low])
        return -float(
            np.sum(
                np.array([gains, losses, images - gains - losses])
                * np.log(np.maximum(shares, 1e-300))
            )
        )

    share = minimize_scalar(
        unlikelihood,
        bounds=(max(0, -low), (1 - low) / 2),
        method="bounded",
        options={"xatol": 1e-10},
    ).x
    deviation = np.sqrt((2 * share + low - low**2) / images)
    assert ((gains - losses) / images - low) / deviation == pytest.approx(norm.ppf(0.95), abs=1e-3)


def test_the_lower_limit_holds_as_often_as_it_says() -> None:
    """True difference -0.1 on 40 images: the limit lies above it in about 5 of 100 draws."""
    generator = np.random.default_rng(3)
    drawn = generator.multinomial(40, [0.08, 0.18, 0.74], size=2000)
    counts, times = np.unique(drawn[:, :2], axis=0, return_counts=True)
    above = np.array([find_lower_limit(gains, losses, 40) > -0.1 for gains, losses in counts])
    assert 0.02 < times[above].sum() / 2000 < 0.07


def test_recalls_class_by_class() -> None:
    labels = np.array([0] * 40 + [1] * 40)
    first, second = labels.copy(), labels.copy()
    first[:20], second[40:44] = (
        1,
        0,
    )  # the first loses half of class 0, the second a tenth of class 1
    table = compare_recalls(Pair(labels, first, second, 3), ["a", "b", "none of it"])
    assert table.images.tolist() == [40, 40, 0]
    assert table["first"].tolist() == [0.5, 1, 0] and table.second.tolist() == [1, 0.9, 0]
    assert table.difference.tolist() == pytest.approx([-0.5, 0.1, 0])
    assert table.low[0] < -0.6 and table.low[1] > -0.1 and table.low[2] == -1
