"""Compare models of different questions on each question that several of them can answer."""

from collections.abc import Mapping

import pandas as pd

from tasks.params.questions import ALL_CLASSES, Question
from tasks.scoring.metrics import score
from tasks.scoring.predictions import collapse, to_arrays
from tasks.scoring.statistics import bootstrap_intervals

SHARED_QUESTIONS_COLUMNS = {
    "question": "Question that the model answers here.",
    "architecture": "Name of the model.",
    "asked": "Question that the model was trained for.",
    "val_accuracy": "Accuracy on the validation images.",
    "val_balanced_accuracy": "Balanced accuracy on the validation images.",
    "val_macro_f1": "Macro F1 on the validation images.",
    "val_roc_auc": "Mean ROC AUC on the validation images.",
    "test_accuracy": "Accuracy on the test images.",
    "test_balanced_accuracy": "Balanced accuracy on the test images.",
    "test_macro_f1": "Macro F1 on the test images.",
    "test_roc_auc": "Mean ROC AUC on the test images.",
    "test_accuracy_low": "Lower end of the 95 % interval of the test accuracy.",
    "test_accuracy_high": "Upper end of the 95 % interval of the test accuracy.",
}


def compare_questions(
    asked: Mapping[str, Question],
    predictions: Mapping[str, pd.DataFrame],
    folders: list[str],
    rank_by: str,
) -> pd.DataFrame:
    """Return one row for each question and each model that can answer it, the best first.

    `asked` is {model: question that it was trained for}. A model answers a coarser question by the
    sums of its probabilities. The question of all classes is left out, because only the models that
    were trained for it can answer it. There are no rows if all models have the same question.
    """
    questions = {question.name: question for question in asked.values()}
    rows: list[dict[str, object]] = []
    for name, question in questions.items():
        if name == ALL_CLASSES or len(questions) == 1:
            continue
        scores = {
            model: score_answers(collapse(predictions[model], groups, question.classes(folders)))
            for model, own in asked.items()
            if (groups := own.coarsen(question, folders)) is not None
        }
        for model in sorted(scores, key=lambda model: (-scores[model][rank_by], model)):
            named = {"question": name, "architecture": model, "asked": asked[model].name}
            rows.append({**named, **scores[model]})
    return pd.DataFrame(rows, columns=list(SHARED_QUESTIONS_COLUMNS))


def score_answers(predictions: pd.DataFrame) -> dict[str, float]:
    """Return the scores of validation and test, and the interval of the test accuracy."""
    scores: dict[str, float] = {}
    for prefix, part in (("val", "validation"), ("test", "test")):
        rows = predictions[predictions.split == part]
        labels, probabilities = to_arrays(rows)
        numbers = score(labels, probabilities)
        if part == "test":
            numbers |= bootstrap_intervals(
                labels, probabilities.argmax(axis=1), probabilities.shape[1], rows.group
            )
        scores |= {f"{prefix}_{name}": value for name, value in numbers.items()}
    return scores
