"""A candidate is held against the champion on images that neither has seen, and left to a person where that cannot be."""

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
from tasks.registry import champion_gate, unseen_images, versions
from tasks.registry.champion_gate import PROMOTED, REFUSED, UNDECIDED, Candidate, Outcome, judge
from tasks.registry.predict_isolated import ask
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
    """A perfect version for 80 images, of which those of even number are of the first class."""
    root = tmp_path_factory.mktemp("judge")
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(root, monkeypatch)
        monkeypatch.setattr(champion_gate, "ask", ask_once({}))
        yield make_candidate(root)


def ask_once(known: dict[tuple[str, Path], str]) -> Callable[[Path, Sequence[Path]], list[str]]:
    """Return `ask` with a memory: each champion answers an image in a process of its own, but only once."""

    def recall(folder: Path, images: Sequence[Path]) -> list[str]:
        champion = versions.artifact(folder, "model").joinpath("answers.json").read_text()
        missing = [image for image in images if (champion, image) not in known]
        if missing:
            known.update(
                zip([(champion, image) for image in missing], ask(folder, missing), strict=True)
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
        test_sha256=unseen_images.images_sha256(test),
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


def against(candidate: Candidate, gate: Gate | None = GATE, **champion: object) -> Outcome:
    """Judge the candidate against a champion that is wrong on the last 20 images, unless told otherwise."""
    version = register(
        candidate.clean.parent / "champion",
        candidate.test,
        **({"seen": [], "wrong": 20} | champion),
    )
    with versions.fetched(version) as folder:
        return judge(candidate, version, folder, gate)


def test_without_champion_its_own_scores_decide(candidate: Candidate) -> None:
    outcome = judge(candidate, None, None, GATE)
    assert outcome.verdict == PROMOTED and outcome.reason.startswith(
        "the first champion; macro F1 0.900"
    )
    outcome = judge(candidate, None, None, Gate(macro_f1=0.95))
    assert (outcome.verdict, outcome.reason) == (REFUSED, "macro F1 0.900, wanted at least 0.95")


def test_a_better_one_is_promoted_whatever_the_order_of_the_classes(candidate: Candidate) -> None:
    outcome = against(candidate, classes=["b", "NA"])
    assert outcome.verdict == PROMOTED
    assert outcome.numbers["challenger_macro_f1"] == 1 and outcome.numbers[
        "champion_macro_f1"
    ] == pytest.approx(0.75)
    assert outcome.numbers["gains"] == 20 and outcome.numbers["compared_images"] == 80
    assert "right alone 20 times, champion right alone 0 times" in outcome.reason


def test_an_equal_one_is_refused(candidate: Candidate) -> None:
    said = [CLASSES[(number + (number >= 60)) % 2] for number in range(80)]  # as the champion says
    outcome = against(replace(candidate, test=candidate.test.assign(predicted=said)))
    assert (
        outcome.verdict == REFUSED
        and "interval of the difference +0.000 to +0.000, wanted above 0" in outcome.reason
    )


def test_a_worse_one_is_refused_with_its_numbers(candidate: Candidate) -> None:
    outcome = against(replace(candidate, test=candidate.test.assign(predicted="b")))
    assert outcome.verdict == REFUSED and outcome.numbers["difference_high"] < 0
    assert (outcome.numbers["losses"], outcome.numbers["gains"]) == (30, 10)


def test_a_better_one_with_poor_scores_of_its_own_is_refused(candidate: Candidate) -> None:
    outcome = against(candidate, gate=Gate(recall_margin=None, calibration_error=0.05))
    assert (outcome.verdict, outcome.reason) == (
        REFUSED,
        "calibration error 0.100, wanted at most 0.05",
    )


def test_no_gate_asks_nothing(candidate: Candidate) -> None:
    """Neither good scores of its own, nor to be better than the champion, nor the champion's classes."""
    poor = replace(candidate, scores=dict.fromkeys(SCORES, 0.0))
    for outcome in (
        judge(poor, None, None, None),
        against(poor, gate=None, wrong=0),
        against(poor, gate=None, classes=["x"]),
    ):
        assert (outcome.verdict, outcome.reason) == (
            PROMOTED,
            "register.gate is null, so nothing is asked",
        )
        assert outcome.checks == [] and outcome.numbers["macro_f1"] == 0


def test_other_classes_are_left_to_a_person(candidate: Candidate) -> None:
    outcome = against(candidate, classes=["NA", "b", "c"])
    assert outcome.verdict == UNDECIDED
    assert (
        "tells NA, b, c apart, and this version NA, b: not to be compared; a person decides: python -m flows.promote"
        in outcome.reason
    )


def test_images_that_the_champion_has_seen_do_not_count(candidate: Candidate) -> None:
    """It was trained on the first 20, and on one that is grouped with number 20."""
    seen = [(sha, "") for sha in candidate.test.sha256[:20]] + [(sha256("copy"), "")]
    copy = pd.DataFrame(
        {"path": ["copy"], "sha256": [sha256("copy")], "group": ["20.png"], "split": ["withheld"]}
    )
    outcome = against(replace(candidate, splits=pd.concat([candidate.splits, copy])), seen=seen)
    assert (outcome.numbers["champion_seen"], outcome.numbers["compared_images"]) == (21, 59)
    assert outcome.numbers["champion_macro_f1"] == pytest.approx(39 / 59, abs=0.01)


def test_images_that_the_candidate_has_seen_do_not_count(candidate: Candidate) -> None:
    """As where copies of test images are kept in training."""
    seen = candidate.test[:5][["sha256", "hash"]]
    assert against(replace(candidate, seen=seen)).numbers["compared_images"] == 75


def test_too_few_images_are_left_to_a_person(candidate: Candidate) -> None:
    outcome = against(candidate, seen=[(sha, "") for sha in candidate.test.sha256[:40]])
    assert outcome.verdict == UNDECIDED
    assert re.search(
        r"of 80 test images version \d+ has seen 40 or a copy of them, this version 0; 40 are left",
        outcome.reason,
    )


def test_a_champion_of_unknown_training_is_left_to_a_person(candidate: Candidate) -> None:
    outcome = against(candidate, seen=None)
    assert (
        outcome.verdict == UNDECIDED
        and "does not say which images it was trained on" in outcome.reason
    )


def test_a_champion_that_cannot_answer_is_told(candidate: Candidate) -> None:
    short = replace(candidate, test=candidate.test[:60])
    version = register(candidate.clean.parent / "champion", short.test, [], 0)
    with (
        versions.fetched(version) as folder,
        pytest.raises(
            UserError, match=r"version \d+ of toy, the champion: it does not predict: KeyError"
        ),
    ):
        judge(candidate, version, folder, GATE)
