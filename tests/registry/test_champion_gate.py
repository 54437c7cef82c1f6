"""A candidate must beat the champion on new images; if that cannot be tested, a person decides."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from mlflow.entities.model_registry import ModelVersion

from tasks.errors import UserError
from tasks.params.register import Gate
from tasks.registry import champion_gate, versions
from tasks.registry.champion_gate import (
    PROMOTED,
    REFUSED,
    UNDECIDED,
    Candidate,
    Champion,
    Decision,
    apply_gate,
)
from tasks.registry.predict_isolated import predict_in_subprocess
from tasks.tracking import runs
from tests.support import toy_registry
from tests.support.pipeline import enter

pytestmark = pytest.mark.slow

CLASSES = ["NA", "b"]
GATE = Gate(recall_margin=None)
SCORES = {
    "test_macro_f1": 0.9,
    "test_recall_NA": 0.9,
    "test_recall_b": 0.9,
    "test_calibration_error": 0.1,
}


@pytest.fixture(scope="module")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Candidate]:
    """Return a perfect version for 80 images: even numbers are of the first class."""
    root = tmp_path_factory.mktemp("gate")
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(root, monkeypatch)
        monkeypatch.setattr(champion_gate, "predict_in_subprocess", predict_once({}))
        yield make_candidate(root)


def predict_once(known: dict[tuple[str, Path], str]) -> Callable[[Path, Sequence[Path]], list[str]]:
    """Return `predict_in_subprocess` with a memory of each champion's predictions."""

    def recall(folder: Path, images: Sequence[Path]) -> list[str]:
        champion = versions.find_artifact(folder, "model").joinpath("answers.json").read_text()
        missing = [image for image in images if (champion, image) not in known]
        if missing:
            known.update(
                zip(
                    [(champion, image) for image in missing],
                    predict_in_subprocess(folder, missing),
                    strict=True,
                )
            )
        return [known[champion, image] for image in images]

    return recall


def make_candidate(root: Path) -> Candidate:
    """Write the images, and register the candidate."""
    runs.open_store()
    rows = [(f"{number:02}.png", CLASSES[number % 2]) for number in range(80)]
    for path, _ in rows:
        root.joinpath("clean").mkdir(exist_ok=True)
        root.joinpath("clean", path).write_bytes(path.encode())
    test = pd.DataFrame(rows, columns=["path", "label"])
    test = test.assign(
        predicted=test.label, sha256=[sha256(path) for path in test.path], group=test.path, hash=""
    )
    splits = test[["path", "sha256", "group"]].assign(split="test")
    return Candidate(
        version=register(root / "candidate", test, [], wrong=0),
        architecture="candidate",
        classes=CLASSES,
        scores=SCORES,
        test=test,
        splits=splits,
        seen=pd.DataFrame(columns=["sha256", "hash"], dtype=str),
        clean=root / "clean",
        hash_distance=32,
    )


def sha256(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()


def register(
    scratch: Path,
    test: pd.DataFrame,
    seen: list[tuple[str, str]] | None,
    wrong: int,
    classes: list[str] = CLASSES,
) -> ModelVersion:
    """Register a toy that is wrong on the last `wrong` images."""
    right = len(test) - wrong
    said = [
        label if number < right else CLASSES[1 - CLASSES.index(label)]
        for number, label in enumerate(test.label)
    ]
    return toy_registry.register(scratch, dict(zip(test.sha256, said, strict=True)), classes, seen)


def compare(candidate: Candidate, gate: Gate | None = GATE, **champion: object) -> Decision:
    """Apply the gate with a champion that by default is wrong on the last 20 images."""
    version = register(
        candidate.clean.parent / "champion",
        candidate.test,
        **({"seen": [], "wrong": 20} | champion),
    )
    with versions.fetch(version) as folder:
        return apply_gate(candidate, Champion(version, folder), gate)


def test_without_champion_its_own_scores_decide(candidate: Candidate) -> None:
    decision = apply_gate(candidate, None, GATE)
    assert decision.verdict == PROMOTED and decision.reason.startswith(
        "the first champion; macro F1 0.900"
    )
    decision = apply_gate(candidate, None, Gate(macro_f1=0.95))
    assert (decision.verdict, decision.reason) == (REFUSED, "macro F1 0.900, wanted at least 0.95")


def test_a_better_one_is_promoted_whatever_the_order_of_the_classes(candidate: Candidate) -> None:
    decision = compare(candidate, classes=["b", "NA"])
    assert decision.verdict == PROMOTED
    assert decision.numbers["challenger_macro_f1"] == 1 and decision.numbers[
        "champion_macro_f1"
    ] == pytest.approx(0.75)
    assert decision.numbers["gains"] == 20 and decision.numbers["compared_images"] == 80
    assert "right alone 20 times, champion right alone 0 times" in decision.reason


def test_an_equal_one_is_refused(candidate: Candidate) -> None:
    said = [CLASSES[(number + (number >= 60)) % 2] for number in range(80)]  # as the champion says
    decision = compare(replace(candidate, test=candidate.test.assign(predicted=said)))
    assert (
        decision.verdict == REFUSED
        and "interval of the difference +0.000 to +0.000, wanted above 0" in decision.reason
    )


def test_a_worse_one_is_refused_with_its_numbers(candidate: Candidate) -> None:
    decision = compare(replace(candidate, test=candidate.test.assign(predicted="b")))
    assert decision.verdict == REFUSED and decision.numbers["difference_high"] < 0
    assert (decision.numbers["losses"], decision.numbers["gains"]) == (30, 10)


def test_a_better_one_with_poor_scores_of_its_own_is_refused(candidate: Candidate) -> None:
    decision = compare(candidate, gate=Gate(recall_margin=None, calibration_error=0.05))
    assert (decision.verdict, decision.reason) == (
        REFUSED,
        "calibration error 0.100, wanted at most 0.05",
    )


def test_without_a_gate_there_are_no_criteria(candidate: Candidate) -> None:
    """Not for scores, not for a comparison with the champion, not for equal classes."""
    poor = replace(candidate, scores=dict.fromkeys(SCORES, 0.0))
    for decision in (
        apply_gate(poor, None, None),
        compare(poor, gate=None, wrong=0),
        compare(poor, gate=None, classes=["x"]),
    ):
        assert (decision.verdict, decision.reason) == (
            PROMOTED,
            "register.gate is null, so no criteria must be met",
        )
        assert decision.checks == [] and decision.numbers["macro_f1"] == 0


def test_other_classes_are_left_to_a_person(candidate: Candidate) -> None:
    decision = compare(candidate, classes=["NA", "b", "c"])
    assert decision.verdict == UNDECIDED
    assert (
        "are NA, b, c, and those of this version NA, b; a person decides: python -m flows.promote"
        in decision.reason
    )


def test_images_that_the_champion_has_seen_do_not_count(candidate: Candidate) -> None:
    """The champion was trained on the first 20, and on one in a group with number 20."""
    seen = [(sha, "") for sha in candidate.test.sha256[:20]] + [(sha256("copy"), "")]
    copy = pd.DataFrame(
        {"path": ["copy"], "sha256": [sha256("copy")], "group": ["20.png"], "split": ["withheld"]}
    )
    decision = compare(replace(candidate, splits=pd.concat([candidate.splits, copy])), seen=seen)
    assert (decision.numbers["champion_seen"], decision.numbers["compared_images"]) == (21, 59)
    assert decision.numbers["champion_macro_f1"] == pytest.approx(39 / 59, abs=0.01)


def test_images_that_the_candidate_has_seen_do_not_count(candidate: Candidate) -> None:
    """This happens if copies of test images are kept in training."""
    seen = candidate.test[:5][["sha256", "hash"]]
    assert compare(replace(candidate, seen=seen)).numbers["compared_images"] == 75


def test_too_few_images_are_left_to_a_person(candidate: Candidate) -> None:
    decision = compare(candidate, seen=[(sha, "") for sha in candidate.test.sha256[:40]])
    assert decision.verdict == UNDECIDED
    assert re.search(
        r"version \d+ was trained on 40 of the 80 test images .*, this version on 0; 40 are left",
        decision.reason,
    )


def test_a_champion_of_unknown_training_is_left_to_a_person(candidate: Candidate) -> None:
    decision = compare(candidate, seen=None)
    assert (
        decision.verdict == UNDECIDED and "has no record of its training images" in decision.reason
    )


def test_a_champion_that_cannot_predict_is_an_error(candidate: Candidate) -> None:
    short = replace(candidate, test=candidate.test[:60])
    version = register(candidate.clean.parent / "champion", short.test, [], 0)
    with (
        versions.fetch(version) as folder,
        pytest.raises(
            UserError, match=r"version \d+ of toy, the champion: it cannot predict: KeyError"
        ),
    ):
        apply_gate(candidate, Champion(version, folder), GATE)
