"""Who was champion when, and why: `data/promotions.jsonl`, one line per look at the test, promotion and rollback.

Lines are only appended, and Git keeps them. Each has the keys of `new_line`; `event` is

    look       the gate judged a version on the test images: `verdict`, `reason`, `checks`, `numbers`
    promotion  a person made a version champion
    rollback   a person brought the champion before back

`champion` is the champion afterwards, `champion_before` the one before; versions are numbers of one registry, so models
are told apart by `…_sha256`, the SHA-256 of their files.
"""

import getpass
import json
import logging
import os
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tasks.params.read import PARAMS
from tasks.tracking.hashes import file_sha256, git_revision

LOOK, PROMOTION, ROLLBACK = "look", "promotion", "rollback"
BY_A_PERSON = (PROMOTION, ROLLBACK)

Line = dict[str, object]

log = logging.getLogger(__name__)


def read(path: Path) -> list[Line]:
    """Return the lines, oldest first. One that is incomplete, as a kill or a full disk leaves it, is told and left out."""
    lines = []
    texts = path.read_bytes().split(b"\n") if path.exists() else []
    for number, text in enumerate(texts, start=1):
        line = _parse(text)
        if line is not None:
            lines.append(line)
        elif text:
            log.info(
                "warn: %s, line %d is incomplete: %d bytes that begin with %r. What it told, such as a look at the test, is not "
                "counted; it stays in the file until you mend it", path, number, len(text), text[:60].decode(errors="replace"),
            )  # fmt: skip
    return lines


def append(path: Path, line: Line) -> None:
    """Write one line to the disk. An incomplete last line is ended first, so that it spoils none but itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def new_line(event: str, model: str, reason: str, hashes: dict[str, str], **facts: object) -> Line:
    """Return a line with the time, the person or account, and what the data, parameters and code were."""
    return {
        "when": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "who": _who(),
        "event": event,
        "model": model,
        **facts,
        "reason": reason,
        "hashes": {**hashes, "params": file_sha256(PARAMS), "code": git_revision()},
    }


def last_change(lines: Sequence[Line]) -> Line | None:
    """Return the line that made the present champion."""
    return next((line for line in reversed(lines) if changes(line)), None)


def changes(line: Line) -> bool:
    """Say whether the champion is another one since this line."""
    return line["champion_sha256"] != line["champion_before_sha256"]


def champion_before(lines: Sequence[Line]) -> str | None:
    """Return the SHA-256 of the model that a rollback brings back: a second one goes back one further, not forth again."""
    stack: list[str] = []
    for line in filter(changes, lines):
        if line["event"] == ROLLBACK and line["champion_sha256"] in stack:
            del stack[stack.index(line["champion_sha256"]) :]
        elif line["champion_before_sha256"] is not None and stack[-1:] != [
            line["champion_before_sha256"]
        ]:
            stack.append(
                line["champion_before_sha256"]
            )  # made champion by something that left no line
        stack.append(line["champion_sha256"])
    return stack[-2] if len(stack) > 1 else None


def find_look(
    lines: Sequence[Line], sha256: str, champion_sha256: str | None, test_sha256: str, gate: dict
) -> Line | None:
    """Return the look that judged this model against this champion on these test images by these criteria."""
    wanted = (sha256, champion_sha256, test_sha256, gate)
    looks = [line for line in lines if line["event"] == LOOK]
    return next(
        (
            line
            for line in reversed(looks)
            if (
                line["model_sha256"],
                line["champion_before_sha256"],
                line["hashes"]["test"],
                line["gate"],
            )
            == wanted
        ),
        None,
    )


def decision_against(lines: Sequence[Line], sha256: str, champion_sha256: str) -> Line | None:
    """Return the person's decision that keeps the gate from judging this model, if there is one.

    A model that was rolled back stays so until a person promotes it; the champion that a person chose stays until a model
    passes that was not yet known then.
    """
    for line in reversed(lines):
        if line["event"] == PROMOTION and line["champion_sha256"] == sha256:
            break
        if line["event"] == ROLLBACK and line["champion_before_sha256"] == sha256:
            return line
    change = last_change(lines)
    if (
        change is None
        or change["event"] not in BY_A_PERSON
        or change["champion_sha256"] != champion_sha256
    ):
        return None
    known = lines[: lines.index(change) + 1]
    mentioned = {
        line[key]
        for line in known
        for key in ("model_sha256", "champion_before_sha256", "champion_sha256")
    }
    return change if sha256 in mentioned else None


def _parse(text: bytes) -> Line | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return (
        line
        if isinstance(line, dict)
        and {"when", "event", "champion_sha256", "champion_before_sha256"} <= set(line)
        else None
    )


def _who() -> str:
    result = subprocess.run(
        ["git", "config", "user.name"], capture_output=True, text=True, check=False
    )
    try:
        return result.stdout.strip() or os.environ.get("USER") or getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"user {os.getuid()}"
