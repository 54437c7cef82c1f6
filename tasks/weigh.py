"""Compute the class weights of each architecture: `data/class_weights/<architecture>.json`.

A balanced weight is inversely proportional to the frequency of the class in the training images, so
that all classes count the same in the loss. An architecture whose question does not fit the class
folders fails here, before any training. Run by hand: `dvc repro --single-item weigh`.
"""

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.utils.class_weight import compute_class_weight

from tasks.errors import UserError
from tasks.params.questions import Question
from tasks.params.read import PARAMS, read_section, refuse
from tasks.params.read_architectures import read_architectures
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
    by_question: dict[str, dict[str, float]] = {}
    for name, question in questions.items():
        weights = weigh(
            training.map(question.map_folders(folders)), question.classes(folders), method
        )
        (class_weights / f"{name}.json").write_text(json.dumps(weights, indent=2) + "\n")
        by_question[question.name] = weights
    for question_name, weights in by_question.items():
        shown = "  ".join(f"{label} {weight:.2f}" for label, weight in weights.items())
        log.info("class weights, %s: %s", question_name, shown)


def check(questions: dict[str, Question], folders: list[str]) -> None:
    """Raise `UserError` that names each question that does not fit the class folders.

    Two questions of one name must also group the folders equally.
    """
    problems: list[str] = []
    known: dict[str, dict[str, str]] = {}
    for architecture, question in questions.items():
        wrong = question.find_problems(folders)
        if not wrong:
            answers = question.map_folders(folders)
            if answers != known.setdefault(question.name, answers):
                wrong = [
                    f"labels: another architecture groups other folders as {question.name}; "
                    "give one class another name"
                ]
        problems += [f"architectures.{architecture}.{problem}" for problem in wrong]
    refuse(PARAMS, problems)


def weigh(labels: pd.Series, classes: list[str], method: str) -> dict[str, float]:
    """Return {class: weight} in the order of `classes`.

    The weight is n / (number of classes * n of the class), or 1 with the method `none`.
    """
    if missing := sorted(set(classes) - set(labels)):
        raise UserError(
            f"expected a training image of each class, found no image of {', '.join(missing)}: "
            "add images, or see data/split.json for withheld images"
        )
    weights = compute_class_weight(
        "balanced" if method == "balanced" else None, classes=np.array(classes), y=labels
    )
    return {label: round(float(weight), 6) for label, weight in zip(classes, weights, strict=True)}


if __name__ == "__main__":
    run(main)
