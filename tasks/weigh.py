"""Balanced class weights of the training images, by scikit-learn: `data/class_weights/<architecture>.json`.

Weights are inversely proportional to class frequencies, so that each class counts the same in the loss. Each
architecture has those of its own question; one that does not fit the class folders fails here, before anything is
trained. Run by hand: `dvc repro --single-item weigh`.
"""

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.utils.class_weight import compute_class_weight

from tasks.errors import UserError
from tasks.params.architectures import read_architectures
from tasks.params.questions import Question
from tasks.params.read import PARAMS, list_problems, read_section
from tasks.params.weigh import Weigh
from tasks.stage import run
from tasks.tables import read_table

log = logging.getLogger(__name__)


def main(splits_csv: Path, class_weights: Path) -> None:
    """Write {class: weight} for every architecture."""
    splits = read_table(splits_csv)
    folders = sorted(set(splits.label))
    training = splits[splits.split == "training"].label
    method = read_section("weigh", Weigh).method
    questions = {name: section.question for name, section in read_architectures().items()}
    check(questions, folders)
    class_weights.mkdir(parents=True, exist_ok=True)
    told: dict[str, dict[str, float]] = {}
    for name, question in questions.items():
        weights = weigh(training.map(question.answers(folders)), question.classes(folders), method)
        (class_weights / f"{name}.json").write_text(json.dumps(weights, indent=2) + "\n")
        told[question.name] = weights
    for question, weights in told.items():
        log.info(
            "class weights, %s: %s",
            question,
            "  ".join(f"{label} {weight:.2f}" for label, weight in weights.items()),
        )


def check(questions: dict[str, Question], folders: list[str]) -> None:
    """Raise `ValueError` naming every question that does not fit the class folders, and two that differ by their folders alone."""
    problems: list[str] = []
    known: dict[str, Question] = {}
    for architecture, question in questions.items():
        wrong = question.problems(folders)
        if not wrong and question.answers(folders) != known.setdefault(
            question.name, question
        ).answers(folders):
            wrong = [
                f"labels: another architecture groups other folders as {question.name}; give one class another name"
            ]
        problems += [f"architectures.{architecture}.{problem}" for problem in wrong]
    if problems:
        raise UserError(list_problems(PARAMS, problems))


def weigh(labels: pd.Series, classes: list[str], method: str) -> dict[str, float]:
    """Return {class: weight} in the order of `classes`: n / (classes * n_class), or 1 with the method `none`."""
    weights = compute_class_weight(
        "balanced" if method == "balanced" else None, classes=np.array(classes), y=labels
    )
    return {label: round(float(weight), 6) for label, weight in zip(classes, weights, strict=True)}


if __name__ == "__main__":
    run(main)
