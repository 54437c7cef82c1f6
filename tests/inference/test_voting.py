"""Votes against counting by hand, weights against all that can be tried."""

import itertools

import numpy as np
import pytest

from tasks.inference import voting


def drawn(members: int, images: int, classes: int, seed: int = 0) -> np.ndarray:
    """Probabilities (members, images, classes), some of them sure of themselves."""
    sharpness = np.random.default_rng(seed).uniform(0.2, 6, size=(members, images, 1))
    powers = np.exp(
        sharpness * np.random.default_rng(seed + 1).normal(size=(members, images, classes))
    )
    return (powers / powers.sum(axis=2, keepdims=True)).astype(np.float32)


def said(rows: list[list[float]]) -> np.ndarray:
    """Return the probabilities of each member for one image."""
    return np.array(rows, np.float32)[:, np.newaxis]


def test_a_soft_vote_is_the_weighted_mean() -> None:
    probabilities, weights = drawn(3, 20, 4), np.array([0.5, 0.2, 0.3])
    expected = [
        [
            sum(weights[member] * float(probabilities[member, image, label]) for member in range(3))
            for label in range(4)
        ]
        for image in range(20)
    ]
    np.testing.assert_allclose(voting.combine(probabilities, weights, "soft"), expected, rtol=1e-12)


@pytest.mark.parametrize(
    "weights", [[0.2] * 5, [1 / 3] * 3, [0.4, 0.35, 0.25], [0.51, 0.49], [0.0001, 0.4999, 0.5]]
)
@pytest.mark.parametrize("classes", [2, 7])
def test_the_class_of_most_votes_is_the_most_probable(weights: list[float], classes: int) -> None:
    probabilities = drawn(len(weights), 1000, classes)
    answers = voting.combine(probabilities, np.array(weights), "majority")
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-6)
    assert answers.min() >= 0
    decided = 0
    for image, answer in enumerate(answers):
        votes, means = [0.0] * classes, [0.0] * classes
        for member, weight in zip(probabilities[:, image], weights, strict=True):
            votes[int(member.argmax())] += weight
            means = [
                mean + weight * float(share) for mean, share in zip(means, member, strict=True)
            ]
        winners = [label for label in range(classes) if votes[label] > max(votes) - 1e-9]
        best = max(winners, key=lambda label: means[label])
        assert answer.argmax() == best
        second = np.delete(answer, best).max()
        assert answer[best] - second >= voting.LEAD - 1e-9
        decided += (np.add(votes, means) / 2).argmax() != best
    assert decided > 0 or weights == [1 / 3] * 3 or len(weights) == 5, (
        "no case in which the mean would have outvoted the votes"
    )


def test_the_mean_does_not_outvote_a_majority() -> None:
    """Two unsure members outvote a sure one, whose class has the higher mean."""
    probabilities, equal = said([[0.51, 0.49], [0.51, 0.49], [0.0, 1.0]]), np.full(3, 1 / 3)
    assert voting.combine(probabilities, equal, "soft").argmax() == 1
    assert voting.combine(probabilities, equal, "majority").argmax() == 0


def test_a_tie_is_broken_by_the_mean() -> None:
    probabilities = said([[0.6, 0.4, 0.0], [0.1, 0.9, 0.0]])
    np.testing.assert_allclose(
        voting.combine(probabilities, np.full(2, 0.5), "majority")[0], [0.425, 0.575, 0], atol=1e-7
    )


def test_what_is_outvoted_comes_down_no_farther_than_it_must() -> None:
    """Compare with many random probabilities in which the winner leads: none is nearer."""
    rng, weights = np.random.default_rng(3), np.array([0.26, 0.26, 0.48])
    wins = np.array([[0.4, 0.3, 0.3], [0.35, 0.33, 0.32], [0.0, 0.95, 0.05]])
    for _ in range(5):
        members = np.clip(wins + 0.02 * rng.normal(size=(3, 3)), 0, 1)
        members = (members / members.sum(axis=1, keepdims=True)).astype(np.float32)[:, np.newaxis]
        shares = (np.array([0.52, 0.48, 0]) + weights @ members[:, 0]) / 2
        assert shares.argmax() == 1
        found = voting.combine(members, weights, "majority")[0]
        assert found.sum() == pytest.approx(1) and found[0] - max(found[1:]) == pytest.approx(
            voting.LEAD
        )
        others = [*rng.dirichlet(np.ones(3), 500), *(found + 0.01 * rng.normal(size=(1500, 3)))]
        others = [other + (1 - other.sum()) / 3 for other in others]
        allowed = [other for other in others if other[0] - max(other[1:]) >= voting.LEAD]
        assert len(allowed) > 100
        assert ((found - shares) ** 2).sum() <= min(
            ((other - shares) ** 2).sum() for other in allowed
        )


@pytest.mark.parametrize("seed", [0, 3])
def test_no_other_weights_have_a_lesser_loss(seed: int) -> None:
    probabilities, targets = drawn(3, 40, 4, seed), np.random.default_rng(seed).integers(4, size=40)
    probabilities[0, np.arange(40), targets] += seed  # a member that is better than the others
    probabilities[0] /= probabilities[0].sum(axis=1, keepdims=True)
    chosen = voting.choose_weights(probabilities, targets)
    of_truth = probabilities[:, np.arange(40), targets].astype(float)

    def loss(weights: np.ndarray) -> float:
        return float(-np.log(weights @ of_truth).mean())

    grid = [
        (a / 100, b / 100, 1 - a / 100 - b / 100)
        for a, b in itertools.product(range(101), repeat=2)
        if a + b <= 100
    ]
    assert loss(chosen) <= min(loss(np.array(weights)) for weights in grid) + 1e-6
    assert chosen.sum() == pytest.approx(1, abs=1e-12) and chosen.min() >= 0
    np.testing.assert_array_equal(chosen, np.round(chosen, voting.DIGITS))
    np.testing.assert_array_equal(chosen, voting.choose_weights(probabilities, targets))


def test_members_that_say_the_same_have_equal_weights() -> None:
    one = drawn(1, 30, 3)
    np.testing.assert_array_equal(
        voting.choose_weights(np.concatenate([one, one]), np.zeros(30, int)), [0.5, 0.5]
    )


def test_a_member_that_is_always_wrong_has_no_weight() -> None:
    right, wrong = [[0.9, 0.1]] * 20, [[0.0, 1.0]] * 20
    np.testing.assert_array_equal(
        voting.choose_weights(np.array([right, wrong]), np.zeros(20, int)), [1, 0]
    )


def test_distances_are_weighed_too() -> None:
    found = voting.average_distances(np.array([[1.0, 2.0], [3.0, 6.0]]), np.array([0.75, 0.25]))
    np.testing.assert_allclose(found, [1.5, 3.0])
    assert found.dtype == np.float32
