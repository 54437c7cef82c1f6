"""Several models' probabilities to those of an ensemble: by their weighted mean, or by vote. Needs no TensorFlow.

`probabilities` have shape (members, images, classes) and are calibrated, `weights` (members,) sum to one. The weighted mean
is the linear opinion pool (Genest and Zidek 1986, doi:10.1214/ss/1177013825).
"""

from typing import Literal

import numpy as np

Vote = Literal["soft", "majority"]

LEAD = 0.01  # of the class that wins a vote before any other, at least
FLOOR = 1e-7  # what a probability of 0 counts as
DIGITS = 4  # of a weight that validation chose
GAP = 1e-7  # of the mean log loss from the least one, at most
STEPS = 50_000


def combine(probabilities: np.ndarray, weights: np.ndarray, vote: Vote) -> np.ndarray:
    """Return the float64 probabilities (images, classes) of the ensemble, before its own temperature.

    A soft vote is the weighted mean. By majority the class that members of most weight find the most probable is the most
    probable; of classes with equal votes that with the higher mean. There the probabilities are half the shares of the votes
    and half the mean: votes alone would be as sure of a narrow majority as of a clear one. A mean that prefers another class
    than the votes would outvote them, so then the nearest probabilities count by which the winner leads by `LEAD`.
    """
    mean = np.tensordot(weights, probabilities.astype(float), axes=1)
    if vote == "soft":
        return mean
    classes = probabilities.shape[2]
    votes = np.tensordot(weights, np.eye(classes)[probabilities.argmax(axis=2)], axes=1)
    most = np.round(votes, 9)  # sums of equal weights in another order are equal votes
    tied = most == most.max(axis=1, keepdims=True)
    return _led((votes + mean) / 2, np.where(tied, mean, -1).argmax(axis=1))


def distances(each: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return how strange images are to the ensemble, float32 (images,): the weighted mean of what its members say."""
    return (weights @ each.astype(float)).astype(np.float32)


def choose_weights(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the weights of the least log loss of the weighted mean for class indices (images,), to `DIGITS` digits.

    The loss is convex; EM steps for the shares of a mixture (Dempster, Laird and Rubin 1977) come down to it from equal
    weights, until the largest gain of a member says that no other weights are better by more than `GAP`.
    """
    members, images = probabilities.shape[:2]
    said = np.maximum(probabilities[:, np.arange(images), targets].T.astype(float), FLOOR)
    weights = np.full(members, 1 / members)
    for _ in range(STEPS):
        gains = (said / (said @ weights)[:, np.newaxis]).mean(axis=0)
        if gains.max() - 1 < GAP:
            break
        weights = weights * gains
    return _rounded(weights)


def _led(shares: np.ndarray, winners: np.ndarray) -> np.ndarray:
    """Return the nearest probabilities by which each row's winner leads by `LEAD`: those ahead of that come down to one level.

    The least squares of the change; the level is that of the winner and the first others together, as many as lie above it.
    """
    rows = np.arange(len(shares))
    own, others = shares[rows, winners], shares.copy()
    others[rows, winners] = -np.inf
    falling = -np.sort(-others, axis=1)  # the winner's place comes last
    first = np.arange(shares.shape[1])  # of them come down: none, one, …
    sums = np.cumsum(np.column_stack([own - LEAD, falling[:, :-1]]), axis=1)
    levels = sums / (first + 1)
    level = levels[rows, (falling <= levels).argmax(axis=1)]
    led = np.minimum(shares, level[:, np.newaxis])
    led[rows, winners] = level + LEAD
    return led


def _rounded(weights: np.ndarray) -> np.ndarray:
    rounded = np.round(weights, DIGITS)
    rounded[rounded.argmax()] += 1 - rounded.sum()
    return np.round(rounded, DIGITS)
