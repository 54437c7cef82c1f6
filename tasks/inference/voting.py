"""Combine the probabilities of several models, by their weighted mean or by vote.

`probabilities` have shape (members, images, classes) and are calibrated; `weights` (members,) sum
to one. The weighted mean is the linear opinion pool (Genest and Zidek 1986,
doi:10.1214/ss/1177013825). Needs no TensorFlow.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Vote = Literal["soft", "majority"]

LEAD = 0.01  # the least lead of the class that wins a vote over every other class
FLOOR = 1e-7  # replaces a probability of 0
DIGITS = 4  # of a weight that validation chose
GAP = 1e-7  # the most by which the mean log loss may exceed the least one
MAX_STEPS = 50_000


def combine(probabilities: NDArray[Any], weights: NDArray[Any], vote: Vote) -> NDArray[np.float64]:
    """Return the probabilities (images, classes) of the ensemble, before its own temperature.

    A soft vote is the weighted mean of the members. A majority vote is won by the class that the
    members with the most weight predict. Between classes with equal votes, the higher mean
    decides. Votes alone would be as confident of a narrow majority as of a clear one. So the
    probabilities are half the shares of the votes and half the mean. If another class than the
    winner leads then, they are replaced by the nearest ones in which the winner leads by `LEAD`.
    """
    mean = np.tensordot(weights, probabilities.astype(float), axes=1)
    if vote == "soft":
        return mean
    classes = probabilities.shape[2]
    votes = np.tensordot(weights, np.eye(classes)[probabilities.argmax(axis=2)], axes=1)
    most = np.round(votes, 9)  # equal votes whose weights were added in another order
    tied = most == most.max(axis=1, keepdims=True)
    return _enforce_lead((votes + mean) / 2, np.where(tied, mean, -1).argmax(axis=1))


def average_distances(distances: NDArray[Any], weights: NDArray[Any]) -> NDArray[np.float32]:
    """Return the weighted mean (images,) of the members' distances (members, images)."""
    return (weights @ distances.astype(float)).astype(np.float32)


def choose_weights(probabilities: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.float64]:
    """Return the weights with the least log loss of the weighted mean, to `DIGITS` digits.

    `targets` are class indices (images,). The loss is convex. The EM steps for the shares of a
    mixture (Dempster, Laird and Rubin 1977) approach its minimum from equal weights. They stop when
    the largest gain of a member shows that no other weights are better by more than `GAP`.
    """
    members, images = probabilities.shape[:2]
    true = np.maximum(probabilities[:, np.arange(images), targets].T.astype(float), FLOOR)
    weights = np.full(members, 1 / members)
    for _ in range(MAX_STEPS):
        gains = (true / (true @ weights)[:, np.newaxis]).mean(axis=0)
        if gains.max() - 1 < GAP:
            break
        weights = weights * gains
    return _round(weights)


def _enforce_lead(shares: NDArray[np.float64], winners: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the nearest probabilities in which the winner of each row leads by `LEAD`.

    The nearest ones change least in squares. In them, every class above a certain level comes down
    to it. The level is the mean of the winner without its lead and of the classes that come down.
    """
    rows = np.arange(len(shares))
    own, others = shares[rows, winners], shares.copy()
    others[rows, winners] = -np.inf
    falling = -np.sort(-others, axis=1)  # the winner comes last
    # Column k has the level if k classes come down.
    sums = np.cumsum(np.column_stack([own - LEAD, falling[:, :-1]]), axis=1)
    levels = sums / (np.arange(shares.shape[1]) + 1)
    level = levels[rows, (falling <= levels).argmax(axis=1)]
    leading = np.minimum(shares, level[:, np.newaxis])
    leading[rows, winners] = level + LEAD
    return leading


def _round(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round weights so that they still sum to one."""
    rounded = np.round(weights, DIGITS)
    rounded[rounded.argmax()] += 1 - rounded.sum()
    return np.round(rounded, DIGITS)
