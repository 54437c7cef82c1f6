"""How often the gate lets a challenger pass that is no better, and one that is three points better.

Test sets are drawn, and both models' answers to them. Four classes in the shares 29, 29, 14 and 28 %; the champion finds
90, 82, 90 and 88 % of them. Models err together: an image has a difficulty that all models feel, and a class that it
is mistaken for; a model is wrong where the difficulty and its own taste, normal variables mixed so that
they correlate by `SHARED` between two models, exceed its skill in the class, and then says the tempting class four
times in five. With `SHARED` 0.6 right and wrong correlate by about 0.3 and the models disagree on a seventh of the images, like
the four CNNs of the demo on its 78 test images (0.12 to 0.50, 9 to 14 %). Of patients, four images share difficulty and taste.

    python -m bench.gate [--draws 1000]
"""

import argparse
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import binomtest, norm

from tasks.params.register import Gate
from tasks.scoring.gate import check_against_champion

CLASSES = ["glioma", "meningioma", "none", "pituitary"]
SHARES = np.array([0.29, 0.29, 0.14, 0.28])
RECALLS = np.array([0.90, 0.82, 0.90, 0.88])
SHARED = 0.6
TEMPTED = 0.8


@dataclass(frozen=True)
class Scenario:
    """A size of the test set, and by how much the challenger's recall lies above the champion's, in points or class by class."""

    name: str
    images: int
    better: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    of_patient: int = 1
    grouped: bool = True


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
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--draws", type=int, default=1000, help="test sets per row (1000)")
    draws = parser.parse_args().draws
    gate = Gate()
    print(
        f"promoted of {draws} test sets each; stated: at most {(1 - gate.confidence) / 2:.1%} of equal challengers"
    )
    columns = (
        f"{'challenger':<30} {'images':>6} {'disagree':>8} {'correlation':>11} {'promoted':>8}"
    )
    print(f"{columns}  95 % interval  by difference, McNemar, recalls alone")
    for scenario in SCENARIOS:
        print(describe(scenario, gate, draws), flush=True)


def describe(scenario: Scenario, gate: Gate, draws: int) -> str:
    """Return one row: how alike the models are, how many challengers pass, and how many would by one criterion alone."""
    generator = np.random.default_rng(1)
    met, disagree, alike = [], [], []
    for _ in range(draws):
        labels, challenger, champion, groups = simulate(scenario, generator)
        right, other = challenger == labels, champion == labels
        met.append(judge(labels, challenger, champion, groups if scenario.grouped else None, gate))
        disagree.append((right != other).mean())
        alike.append(np.corrcoef(right, other)[0, 1])
    promoted = int(np.all(met, axis=1).sum())
    interval = binomtest(promoted, draws).proportion_ci(method="exact")
    alone = "  ".join(f"{share:.1%}" for share in np.mean(met, axis=0))
    return (
        f"{scenario.name:<30} {scenario.images:>6} {np.mean(disagree):>8.1%} {np.mean(alike):>11.2f} {promoted / draws:>8.1%}  "
        f"{interval.low:.1%} to {interval.high:.1%}  {alone}"
    )


def judge(
    labels: np.ndarray,
    challenger: np.ndarray,
    champion: np.ndarray,
    groups: np.ndarray | None,
    gate: Gate,
) -> list[bool]:
    """Return which of the gate's criteria against the champion are met."""
    names = np.array(CLASSES)
    columns = {"label": labels, "predicted": challenger, "champion": champion}
    table = pd.DataFrame({name: names[column] for name, column in columns.items()})
    if groups is not None:
        table["group"] = groups
    checks, _ = check_against_champion(table, CLASSES, gate)
    return [check.met for check in checks]


def simulate(
    scenario: Scenario, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw a test set: classes, the challenger's and the champion's answers, patients, each of shape (images,)."""
    patients = scenario.images // scenario.of_patient
    groups = np.repeat(np.arange(patients), scenario.of_patient)
    labels = generator.choice(len(CLASSES), size=patients, p=SHARES)[groups]
    difficulty = generator.normal(size=patients)[groups]
    tempting = _another(labels, generator)
    answers = []
    for recalls in (RECALLS + scenario.better, RECALLS):
        taste = generator.normal(size=patients)[groups]
        wrong = (
            np.sqrt(SHARED) * difficulty + np.sqrt(1 - SHARED) * taste > norm.ppf(recalls)[labels]
        )
        mistaken = np.where(
            generator.random(len(labels)) < TEMPTED, tempting, _another(labels, generator)
        )
        answers.append(np.where(wrong, mistaken, labels))
    return labels, *answers, groups


def _another(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Draw another class than each label."""
    return (labels + generator.integers(1, len(CLASSES), size=len(labels))) % len(CLASSES)


if __name__ == "__main__":
    main()
