"""Judge a candidate: by its own scores, and against the champion, which predicts today's test images anew.

Test images that either of the two, or a copy of which, was trained on do not count. The test chooses nothing: a candidate won on
validation, and here it is promoted or refused, or, where the two cannot be compared, left to a person.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from mlflow.entities.model_registry import ModelVersion

from tasks.errors import UserError
from tasks.params.register import Gate
from tasks.registry import promotions, unseen_images, versions
from tasks.registry.predict_isolated import ask
from tasks.registry.promotions import Line
from tasks.results import CLASSES_JSON
from tasks.scoring.gate import Check, check_against_champion, check_scores
from tasks.tables import read_table

PROMOTED, REFUSED, UNDECIDED = "promoted", "refused", "undecided"  # verdicts of a look
NAMED = 20  # classes that a reason names
STANDS = "stands"  # no look: what was decided before stands
PROMOTE = 'python -m flows.promote --version {} --reason "…"'

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A version and what is known of the images that judge it."""

    version: ModelVersion
    architecture: str
    classes: list[str]
    scores: dict[str, float]
    test: pd.DataFrame  # as evidence.judging_images returns it
    test_sha256: str
    splits: pd.DataFrame
    seen: pd.DataFrame  # as evidence.images_given returns it
    clean: Path
    hash_distance: int

    @property
    def sha256(self) -> str:
        return self.version.tags[versions.SHA256]


@dataclass(frozen=True)
class Outcome:
    """What became of a candidate, why, and by which numbers."""

    verdict: str
    reason: str
    checks: list[Check] = field(default_factory=list)
    numbers: dict[str, object] = field(default_factory=dict)


def settled(
    candidate: Candidate, champion: ModelVersion | None, lines: Sequence[Line], gate: Gate | None
) -> Outcome | None:
    """Return what was decided before, by a person or by a look that would only be repeated; None where a look is due."""
    number, change = int(candidate.version.version), promotions.last_change(lines)
    if champion is None and change is not None:
        return Outcome(
            UNDECIDED,
            f"data/promotions.jsonl names the champion: version {change['champion']} there, model {change['champion_sha256'][:8]}, "
            f"since {_decided(change)}. This registry has no champion: use the one that holds it (MLFLOW_TRACKING_URI), "
            f"or {_person(number)}",
        )
    if champion is not None and int(champion.version) == number:
        since = change is not None and change["champion_sha256"] == candidate.sha256
        return Outcome(
            STANDS, f"it is the champion already{f', since {_decided(change)}' if since else ''}"
        )
    champion_sha256 = champion.tags[versions.SHA256] if champion else None
    decision = promotions.decision_against(lines, candidate.sha256, champion_sha256)
    if decision is not None:
        back = decision["champion_before_sha256"] == candidate.sha256
        why = "took this one back" if back else "was made when this one was known"
        return Outcome(
            STANDS,
            f"version {champion.version} stays champion: {_decided(decision)} ({decision['reason']}) {why}; {_person(number)}",
        )
    look = promotions.find_look(
        lines, candidate.sha256, champion_sha256, candidate.test_sha256, gate and gate.model_dump()
    )
    if look is None:
        return None
    verdict = STANDS if look["verdict"] == PROMOTED else look["verdict"]
    return Outcome(
        verdict, f"judged by {_decided(look)}, and not again: {look['verdict']}: {look['reason']}"
    )


def judge(
    candidate: Candidate, champion: ModelVersion | None, folder: Path | None, gate: Gate | None
) -> Outcome:
    """Look at the test. `folder` holds the champion's MLflow model; without a champion the candidate's own scores decide.

    Without a gate nothing is asked, and the candidate becomes champion.
    """
    own, numbers = check_scores(candidate.scores, gate)
    if gate is None:
        return Outcome(PROMOTED, "register.gate is null, so nothing is asked", own, numbers)
    obstacle, compared = "", []
    if champion is not None:
        obstacle, compared, more = _against(candidate, champion, folder, gate)
        numbers |= more
    checks = own + compared
    failed = [check.text for check in checks if not check.met]
    if failed:
        return Outcome(REFUSED, "; ".join(failed + [obstacle] * bool(obstacle)), checks, numbers)
    if obstacle:
        return Outcome(
            UNDECIDED, f"{obstacle}; {_person(int(candidate.version.version))}", checks, numbers
        )
    why = (
        [check.text for check in compared]
        if champion
        else ["the first champion", *(check.text for check in own)]
    )
    return Outcome(PROMOTED, "; ".join(why), checks, numbers)


def _against(
    candidate: Candidate, champion: ModelVersion, folder: Path, gate: Gate
) -> tuple[str, list[Check], dict[str, object]]:
    """Return what forbids a comparison, the criteria against the champion, and their numbers; one of the first two is empty."""
    named = f"version {champion.version}"
    classes = json.loads((versions.artifact(folder, "model") / CLASSES_JSON).read_text())
    if set(classes) != set(candidate.classes):
        return (
            f"{named} tells {_list(classes)} apart, and this version {_list(candidate.classes)}: not to be compared",
            [],
            {},
        )
    try:
        seen = read_table(versions.artifact(folder, "seen"))
    except FileNotFoundError:
        return (
            f"{named} does not say which images it was trained on, so no test image is sure to be new to it",
            [],
            {},
        )
    fair, numbers = _fair_images(candidate, seen)
    if len(fair) < gate.images:
        return (
            f"of {len(candidate.test)} test images {named} has seen {numbers['champion_seen']} or a copy of them, this version "
            f"{numbers['challenger_seen']}; {len(fair)} are left, and {gate.images} are needed (register.gate.images)",
            [],
            numbers,
        )
    log.info(
        "%s predicts %d of %d test images anew, those that neither has seen",
        named,
        len(fair),
        len(candidate.test),
    )
    answers = _answers(champion, folder, [candidate.clean / path for path in fair.path], classes)
    checks, compared = check_against_champion(
        fair.assign(champion=answers), candidate.classes, gate
    )
    return "", checks, numbers | compared


def _fair_images(
    candidate: Candidate, champion_seen: pd.DataFrame
) -> tuple[pd.DataFrame, dict[str, object]]:
    """Return the test images that neither model, nor a copy of which, has seen; and how many there are of each."""
    new = [
        unseen_images.unseen(candidate.test, candidate.splits, seen, candidate.hash_distance)
        for seen in (champion_seen, candidate.seen)
    ]
    numbers = {
        "test_images": len(candidate.test),
        "champion_seen": int((~new[0]).sum()),
        "challenger_seen": int((~new[1]).sum()),
    }
    return candidate.test[new[0] & new[1]], numbers


def _answers(
    champion: ModelVersion, folder: Path, images: Sequence[Path], classes: Sequence[str]
) -> list[str]:
    named = f"version {champion.version} of {champion.name}, the champion"
    try:
        answers = ask(folder, images)
    except UserError as error:
        raise UserError(
            f"{named}: {error}. Install what it needs, or promote another version: {PROMOTE.format('N')}"
        ) from error
    unknown = set(answers) - set(classes)
    if unknown:
        raise UserError(
            f"{named}: expected the classes {_list(classes)}, received also {_list(sorted(unknown))}"
        )
    return answers


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _decided(line: Line) -> str:
    return f"the {line['event']} of {line['when'][:10]} by {line['who']}"


def _person(number: int) -> str:
    return f"a person decides: {PROMOTE.format(number)}"
