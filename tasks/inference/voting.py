"""Combine the probabilities of several models, by their weighted mean or by a majority vote.

`probabilities` are calibrated and have the shape (members, images, classes). `weights` (members,)
sum to 1. The weighted mean is the linear opinion pool (Genest and Zidek 1986,
doi:10.1214/ss/1177013825). This module needs no TensorFlow.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Vote = Literal["soft", "majority"]

LEAD = 0.01  # by how much at least the winner of a majority vote leads every other class
FLOOR = 1e-7  # replaces a probability of 0
DIGITS = 4  # decimal places of weights that are chosen on validation images
GAP = 1e-7  # how far the mean log loss may stay above its minimum
MAX_STEPS = 50_000


def combine(probabilities: NDArray[Any], weights: NDArray[Any], vote: Vote) -> NDArray[np.float64]:
    """Return the probabilities (images, classes) of the ensemble, before its own temperature.

    A soft vote returns the weighted mean of the members. In a majority vote each member gives its
    weight to the class that it predicts. The class with the most weight wins. Among classes of
    equal weight, the class with the highest mean wins.

    The probabilities of a majority vote are half the shares of the votes and half the mean. The
    shares alone would ignore how confident the members are. If the winner then leads by less than
    `LEAD`, the nearest probabilities in which it leads by `LEAD` are returned.
    """
    mean = np.tensordot(weights, probabilities.astype(float), axes=1)
    if vote == "soft":
        return mean
    classes = probabilities.shape[2]
    votes = np.tensordot(weights, np.eye(classes)[probabilities.argmax(axis=2)], axes=1)
    most = np.round(votes, 9)  # votes are equal in whatever order weights were added
    tied = most == most.max(axis=1, keepdims=True)
    return _enforce_lead((votes + mean) / 2, np.where(tied, mean, -1).argmax(axis=1))


def average_distances(distances: NDArray[Any], weights: NDArray[Any]) -> NDArray[np.float32]:
    """Return the weighted mean (images,) of the members' distances (members, images)."""
    return (weights @ distances.astype(float)).astype(np.float32)


def choose_weights(probabilities: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.float64]:
    """Return the weights with the lowest log loss of the weighted mean, to `DIGITS` digits.

    `targets` are class indices (images,). The loss is convex. From equal weights, the EM steps for
    the shares of a mixture (Dempster, Laird and Rubin 1977) approach its minimum. The largest gain
    of a member bounds how much better other weights can be. The steps stop at a bound of `GAP`.
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

    Nearest means the smallest sum of squared changes. Every other class above a certain level is
    lowered to this level. The level is the mean of the lowered classes and of the winner minus
    `LEAD`.
    """
    rows = np.arange(len(shares))
    own, others = shares[rows, winners], shares.copy()
    others[rows, winners] = -np.inf
    falling = -np.sort(-others, axis=1)  # the winner comes last
    # Column k has the level if k classes are lowered.
    sums = np.cumsum(np.column_stack([own - LEAD, falling[:, :-1]]), axis=1)
    levels = sums / (np.arange(shares.shape[1]) + 1)
    level = levels[rows, (falling <= levels).argmax(axis=1)]
    leading = np.minimum(shares, level[:, np.newaxis])
    leading[rows, winners] = level + LEAD
    return leading


def _round(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round weights so that they still sum to 1."""
    rounded = np.round(weights, DIGITS)
    rounded[rounded.argmax()] += 1 - rounded.sum()
    return np.round(rounded, DIGITS)
