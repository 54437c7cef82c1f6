"""Simulate how often the gate promotes a challenger that is no better, and one that is better.

The simulation draws test sets and the predictions of both models. There are four classes with the
shares 29, 29, 14 and 28 %, of which the champion finds 90, 82, 90 and 88 %. Models err together:

- An image has a difficulty for all models, and one tempting class.
- A model has a weakness of its own for each image. Difficulty and weakness are normal variables.
- A model errs if their sum exceeds its skill in the class. `SHARED` is the correlation of the sums
  of two models.
- An error predicts the tempting class four times in five.

With `SHARED` 0.6 the errors of two models correlate by about 0.3, and the models disagree on one
image in seven, as the four CNNs of the demo on its 78 test images (0.12 to 0.50, 9 to 14 %). The
four images of a patient have the same difficulty and weakness.

    python -m bench.gate [--draws 1000]
"""

import argparse
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest, norm

from tasks.params.register import Gate
from tasks.scoring.gate import check_against_champion

CLASSES = ["glioma", "meningioma", "none", "pituitary"]
SHARES = np.array([0.29, 0.29, 0.14, 0.28])
RECALLS = np.array([0.90, 0.82, 0.90, 0.88])
SHARED = 0.6  # correlation of two models' difficulties
TEMPTED = 0.8  # share of the errors that predict the tempting class

Classes = NDArray[np.int64]


@dataclass(frozen=True)
class Scenario:
    """A size of the test set, and how much the challenger's recall of each class is higher."""

    name: str
    images: int
    better: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    of_patient: int = 1  # images of a patient
    grouped: bool = True  # whether the gate knows the patients


SCENARIOS = (
    Scenario("equal", 78),
    Scenario("equal", 400),
    Scenario("equal", 4000),
    Scenario("equal, other strengths", 400, (0.05, -0.05, 0.0, 0.0)),
    Scenario("equal, 4 images of a patient", 400, of_patient=4),
    Scenario("the same, patients unknown", 400, of_patient=4, grouped=False),
    Scenario("3 points better", 400, (0.03, 0.03, 0.03, 0.03)),
    Scenario("3 points better", 4000, (0.03, 0.03, 0.03, 0.03)),
)


def main() -> None:
    """Print one row for each scenario."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--draws", type=int, default=1000, help="simulated test sets (1000)")
    draws = parser.parse_args().draws
    gate = Gate()
    stated = f"{(1 - gate.confidence) / 2:.1%}"
    print(f"promoted in {draws} test sets; stated: at most {stated} of equal challengers")
    print(f"{'challenger':<30} {'images':>6} {'disagree':>8} {'correlation':>11}", end=" ")
    print(f"{'promoted':>8}  95 % interval  by only the difference, McNemar, recalls")
    for scenario in SCENARIOS:
        print(describe(scenario, gate, draws), flush=True)


def describe(scenario: Scenario, gate: Gate, draws: int) -> str:
    """Return one row: how similar the models are, and how many challengers pass.

    The last columns have the share that would pass each criterion by itself.
    """
    generator = np.random.default_rng(1)
    met, disagree, correlations = [], [], []
    for _ in range(draws):
        labels, challenger, champion, groups = simulate(scenario, generator)
        right, other = challenger == labels, champion == labels
        known = groups if scenario.grouped else None
        met.append(judge(labels, challenger, champion, known, gate))
        disagree.append((right != other).mean())
        correlations.append(np.corrcoef(right, other)[0, 1])
    promoted = int(np.all(met, axis=1).sum())
    interval = binomtest(promoted, draws).proportion_ci(method="exact")
    alone = "  ".join(f"{share:.1%}" for share in np.mean(met, axis=0))
    return (
        f"{scenario.name:<30} {scenario.images:>6} {np.mean(disagree):>8.1%} "
        f"{np.mean(correlations):>11.2f} {promoted / draws:>8.1%}  "
        f"{interval.low:.1%} to {interval.high:.1%}  {alone}"
    )


def judge(
    labels: Classes, challenger: Classes, champion: Classes, groups: Classes | None, gate: Gate
) -> list[bool]:
    """Return for each criterion of the gate whether the challenger meets it."""
    names = np.array(CLASSES)
    columns = {"label": labels, "predicted": challenger, "champion": champion}
    table = pd.DataFrame({name: names[column] for name, column in columns.items()})
    if groups is not None:
        table["group"] = groups
    checks, _ = check_against_champion(table, CLASSES, gate)
    return [check.met for check in checks]


def simulate(
    scenario: Scenario, generator: np.random.Generator
) -> tuple[Classes, Classes, Classes, Classes]:
    """Draw a test set: classes, the challenger's and the champion's predictions, and patients.

    Each array has the shape (images,).
    """
    patients = scenario.images // scenario.of_patient
    groups = np.repeat(np.arange(patients), scenario.of_patient)
    labels = generator.choice(len(CLASSES), size=patients, p=SHARES)[groups]
    difficulty = generator.normal(size=patients)[groups]
    tempting = _draw_other(labels, generator)
    predictions = []
    for recalls in (RECALLS + scenario.better, RECALLS):
        weakness = generator.normal(size=patients)[groups]
        wrong = (
            np.sqrt(SHARED) * difficulty + np.sqrt(1 - SHARED) * weakness
            > norm.ppf(recalls)[labels]
        )
        mistaken = np.where(
            generator.random(len(labels)) < TEMPTED, tempting, _draw_other(labels, generator)
        )
        predictions.append(np.where(wrong, mistaken, labels))
    challenger, champion = predictions
    return labels, challenger, champion, groups


def _draw_other(labels: Classes, generator: np.random.Generator) -> Classes:
    """Draw a class other than each label."""
    return (labels + generator.integers(1, len(CLASSES), size=len(labels))) % len(CLASSES)


if __name__ == "__main__":
    main()
