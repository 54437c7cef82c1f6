"""Balanced class weights of the training images, by scikit-learn: `data/class_weights.json`.

Weights are inversely proportional to class frequencies, so that each class counts the same in the loss. There is one
set for every question that the architectures ask; a question that does not fit the class folders fails here, before
anything is trained. Run by hand: `dvc repro --single-item weigh`.
"""

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.utils.class_weight import compute_class_weight

from tasks.command import run
from tasks.params import load_params
from tasks.questions import ALL_CLASSES, Question
from tasks.tables import read_table

log = logging.getLogger(__name__)


def main(splits_csv: Path, weights_json: Path) -> None:
    """Write {question: {class: weight}}, the question of all classes first."""
    params = load_params()
    splits = read_table(splits_csv)
    folders = sorted(set(splits.label))
    training = splits[splits.split == "training"].label
    questions = ask({name: section.question for name, section in params.architectures.items()}, folders)
    weights = {
        question.name: weigh(training.map(question.answers(folders)), question.classes(folders), params.weigh.method)
        for question in questions
    }
    weights_json.write_text(json.dumps(weights, indent=2) + "\n")
    for question, of in weights.items():
        log.info("class weights, %s: %s", question, "  ".join(f"{label} {weight:.2f}" for label, weight in of.items()))


def ask(asked: dict[str, Question], folders: list[str]) -> list[Question]:
    """Return the questions of the architectures once each, that of all classes first.

    Raises `ValueError` naming every one that does not fit the class folders, and two that differ by their folders alone.
    """
    problems: list[str] = []
    known: dict[str, Question] = {}
    for architecture, question in asked.items():
        wrong = question.problems(folders)
        if not wrong and question.answers(folders) != known.setdefault(question.name, question).answers(folders):
            wrong = [f"labels: another architecture groups other folders as {question.name}; give one class another name"]
        problems += [f"architectures.{architecture}.{problem}" for problem in wrong]
    if problems:
        raise ValueError("\n  ".join([f"params.yaml has {len(problems)} mistake{'s' * (len(problems) > 1)}:", *problems]))
    return [Question(), *(question for name, question in known.items() if name != ALL_CLASSES)]


def weigh(labels: pd.Series, classes: list[str], method: str) -> dict[str, float]:
    """Return {class: weight} in the order of `classes`: n / (classes * n_class), or 1 with the method `none`."""
    weights = compute_class_weight("balanced" if method == "balanced" else None, classes=np.array(classes), y=labels)
    return {label: round(float(weight), 6) for label, weight in zip(classes, weights, strict=True)}


if __name__ == "__main__":
    run(main)
