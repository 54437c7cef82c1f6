"""The fit finds the true temperature, and no prediction changes, even with zeros and ties."""

import numpy as np
import pytest

from tasks.modeling import temperature


def answers(images: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Honest probabilities and classes drawn by them."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(classes, 0.5), images)
    return probabilities, (probabilities.cumsum(axis=1) < rng.random((images, 1))).sum(axis=1).clip(
        max=classes - 1
    )


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("wanted", [0.5, 1.0, 2.0, 5.0])
def test_the_temperature_that_was_put_in_is_found(classes: int, wanted: float) -> None:
    honest, targets = answers(4000, classes)
    sure = temperature.apply(honest, 1 / wanted)
    assert temperature.fit(sure, targets) == pytest.approx(wanted, rel=0.06)
    assert np.abs(temperature.apply(sure, wanted) - honest).max() < 1e-3


def test_a_model_that_errs_nowhere_is_not_made_infinitely_sure() -> None:
    """Each of twenty images right is no reason to be surer than about one in twenty."""
    probabilities = np.full((20, 4), 0.1)
    probabilities[:, 0] = 0.7
    calibrated = temperature.apply(probabilities, temperature.fit(probabilities, np.zeros(20, int)))
    assert calibrated[:, 0] == pytest.approx(21 / 22, abs=1e-4)


def test_zeros_of_a_forest_are_neither_fatal_nor_more_than_their_neighbours() -> None:
    votes = np.array([[1, 0, 0], [0.5, 0.5, 0], [0.9, 0.1, 0], [0, 0.2, 0.8]], np.float32)
    targets = np.array([0, 0, 0, 2] * 50)
    targets[0] = 1  # which no tree voted for
    wanted = temperature.fit(np.tile(votes, (50, 1)), targets)
    assert 1 < wanted < 20
    calibrated = temperature.apply(votes, wanted)
    assert np.isfinite(calibrated).all() and calibrated.sum(axis=1) == pytest.approx(1, abs=1e-6)
    underflown = temperature.apply(np.array([[1, 1e-30, 0]], np.float32), 2.0)
    assert underflown[0, 1] >= underflown[0, 2] >= 0


@pytest.mark.parametrize("wanted", [0.05, 0.7, 1.0, 1.5, 20.0])
def test_no_prediction_changes_not_even_by_the_last_bit(wanted: float) -> None:
    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.ones(4), 20_000).astype(np.float32)
    rows[::2, 1] = np.nextafter(rows[::2].max(axis=1), np.float32(1))
    tied = rows[:100].copy()
    tied[:, 3] = tied.max(axis=1)
    for given in (rows, tied):
        calibrated = temperature.apply(given, wanted)
        assert calibrated.dtype == np.float32
        assert np.array_equal(calibrated.argmax(axis=1), given.argmax(axis=1))


def test_the_same_answers_give_the_same_number() -> None:
    probabilities, targets = answers(300, 3)
    assert temperature.fit(probabilities, targets) == temperature.fit(
        probabilities.copy(), targets.copy()
    )
    assert len(f"{temperature.fit(probabilities, targets):.10g}".replace(".", "").lstrip("0")) <= 6
