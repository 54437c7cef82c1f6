"""Decide whether a candidate becomes champion.

The candidate must have good scores of its own, and must beat the champion on the same test images.
The champion predicts them anew. A test image does not count if either model was trained on it or on
a copy of it. If the two models cannot be compared, a person decides. The test images select no
model: the candidate was selected on the validation images before.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.entities.model_registry import ModelVersion

from tasks.errors import UserError
from tasks.params.register import Gate
from tasks.quality.folder_names import list_names
from tasks.registry import promotions, unseen_images, versions
from tasks.registry.predict_isolated import predict_in_subprocess
from tasks.registry.promotions import Line
from tasks.results import CLASSES_JSON
from tasks.scoring.gate import Check, check_against_champion, check_scores
from tasks.tables import read_table

PROMOTED, REFUSED, UNDECIDED = "promoted", "refused", "undecided"  # verdicts of a look
STANDS = "stands"  # no look was due: an earlier decision stands
PROMOTE = 'python -m flows.promote --version {} --reason "…"'

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A version, its own scores, and the test images for its comparison with the champion."""

    version: ModelVersion
    architecture: str
    classes: list[str]
    scores: dict[str, float]
    test: pd.DataFrame  # see unseen_images.select_test_images
    splits: pd.DataFrame
    seen: pd.DataFrame  # see unseen_images.select_given_images
    clean: Path
    hash_distance: int

    @property
    def sha256(self) -> str:
        """The SHA-256 of the model's files."""
        return self.version.tags[versions.SHA256]

    @property
    def test_sha256(self) -> str:
        """The SHA-256 of the test images and their labels."""
        return unseen_images.images_sha256(self.test)


@dataclass(frozen=True)
class Champion:
    """The champion's version, and the folder of its MLflow model."""

    version: ModelVersion
    folder: Path


@dataclass(frozen=True)
class Decision:
    """The verdict on a candidate, its reason, and the numbers behind it."""

    verdict: str
    reason: str
    checks: list[Check] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)


def find_earlier_decision(
    candidate: Candidate, champion: ModelVersion | None, lines: Sequence[Line], gate: Gate | None
) -> Decision | None:
    """Return the decision that an earlier look or a person made; None if a look is due."""
    number, change = int(candidate.version.version), promotions.find_last_change(lines)
    if champion is None:
        if change is not None:
            return Decision(UNDECIDED, _describe_lost_champion(number, change))
    elif int(champion.version) == number:
        known = change is not None and change["champion_sha256"] == candidate.sha256
        since = f", since {_describe_line(change)}" if change and known else ""
        return Decision(STANDS, f"it is the champion already{since}")
    else:
        blocking = promotions.find_blocking_decision(
            lines, candidate.sha256, champion.tags[versions.SHA256]
        )
        if blocking is not None:
            return Decision(STANDS, _describe_blocking(candidate, champion, blocking))
    look = promotions.find_look(
        lines,
        candidate.sha256,
        champion.tags[versions.SHA256] if champion else None,
        candidate.test_sha256,
        gate.model_dump() if gate else None,
    )
    if look is None:
        return None
    verdict = STANDS if look["verdict"] == PROMOTED else look["verdict"]
    before = f"{_describe_line(look)} decided this, and is not repeated"
    return Decision(verdict, f"{before}: {look['verdict']}: {look['reason']}")


def _describe_lost_champion(number: int, change: Line) -> str:
    return (
        f"data/promotions.jsonl names version {change['champion']} as champion (model "
        f"{change['champion_sha256'][:8]}, since {_describe_line(change)}), but this registry has "
        "no champion. Use the registry that holds it (MLFLOW_TRACKING_URI), or decide yourself: "
        f"{PROMOTE.format(number)}"
    )


def _describe_blocking(candidate: Candidate, champion: ModelVersion, decision: Line) -> str:
    replaced = decision["champion_before_sha256"] == candidate.sha256
    effect = "replaced this model" if replaced else "was made when this model was already known"
    return (
        f"version {champion.version} stays champion: {_describe_line(decision)} "
        f"({decision['reason']}) {effect}; {_ask_person(candidate.version)}"
    )


def apply_gate(candidate: Candidate, champion: Champion | None, gate: Gate | None) -> Decision:
    """Check the candidate's own scores, and compare it with the champion if there is one.

    Without a gate the candidate becomes champion.
    """
    own, scores = check_scores(candidate.scores, gate)
    numbers: dict[str, Any] = dict(scores)
    if gate is None:
        return Decision(PROMOTED, "register.gate is null, so no criteria must be met", own, numbers)
    obstacle, compared = "", list[Check]()
    if champion is not None:
        obstacle, compared, more = _compare(candidate, champion, gate)
        numbers |= more
    checks = own + compared
    failed = [check.text for check in checks if not check.met]
    if failed:
        return Decision(REFUSED, "; ".join(failed + [obstacle] * bool(obstacle)), checks, numbers)
    if obstacle:
        reason = f"{obstacle}; {_ask_person(candidate.version)}"
        return Decision(UNDECIDED, reason, checks, numbers)
    met = [check.text for check in compared or own]
    return Decision(
        PROMOTED, "; ".join(met if champion else ["the first champion", *met]), checks, numbers
    )


def _compare(
    candidate: Candidate, champion: Champion, gate: Gate
) -> tuple[str, list[Check], dict[str, Any]]:
    """Return the obstacle to a comparison, or the criteria and numbers of the comparison."""
    name = f"version {champion.version.version}"
    classes = json.loads(
        (versions.find_artifact(champion.folder, "model") / CLASSES_JSON).read_text()
    )
    if set(classes) != set(candidate.classes):
        theirs, own = list_names(classes), list_names(candidate.classes)
        obstacle = f"not comparable: the classes of {name} are {theirs}, and those of this version "
        return obstacle + own, [], {}
    try:
        seen = read_table(versions.find_artifact(champion.folder, "seen"))
    except FileNotFoundError:
        return f"{name} has no record of its training images, so none is surely new to it", [], {}
    fair, numbers = _select_fair_images(candidate, seen)
    if len(fair) < gate.images:
        obstacle = (
            f"{name} was trained on {numbers['champion_seen']} of the {len(candidate.test)} test "
            f"images or on copies of them, this version on {numbers['challenger_seen']}; "
            f"{len(fair)} are left, but {gate.images} are needed (register.gate.images)"
        )
        return obstacle, [], numbers
    log.info("%s predicts the %d test images that are new to both models", name, len(fair))
    predictions = _predict(champion, [candidate.clean / path for path in fair.path], classes)
    checks, compared = check_against_champion(
        fair.assign(champion=predictions), candidate.classes, gate
    )
    return "", checks, numbers | compared


def _select_fair_images(
    candidate: Candidate, champion_seen: pd.DataFrame
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the test images that are new to both models, and how many each model has seen."""
    for_champion, for_candidate = (
        unseen_images.find_unseen(candidate.test, candidate.splits, seen, candidate.hash_distance)
        for seen in (champion_seen, candidate.seen)
    )
    numbers = {
        "test_images": len(candidate.test),
        "champion_seen": int((~for_champion).sum()),
        "challenger_seen": int((~for_candidate).sum()),
    }
    return candidate.test[for_champion & for_candidate], numbers


def _predict(champion: Champion, images: Sequence[Path], classes: Sequence[str]) -> list[str]:
    name = f"version {champion.version.version} of {champion.version.name}, the champion"
    try:
        predictions = predict_in_subprocess(champion.folder, images)
    except UserError as error:
        raise UserError(
            f"{name}: {error}. Install the packages that it needs, or promote another version: "
            f"{PROMOTE.format('N')}"
        ) from error
    unknown = sorted(set(predictions) - set(classes))
    if unknown:
        raise UserError(
            f"{name}: expected the classes {list_names(classes)}, received {list_names(unknown)}"
        )
    return predictions


def _describe_line(line: Line) -> str:
    return f"the {line['event']} of {line['when'][:10]} by {line['who']}"


def _ask_person(version: ModelVersion) -> str:
    return f"a person decides: {PROMOTE.format(version.version)}"
