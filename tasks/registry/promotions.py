"""The ledger of champions, `data/promotions.jsonl`: one line per look, promotion and rollback.

Lines are only appended, and Git keeps the file. `make_line` lists the keys. The events are

    look       the gate compared a version on the test images: verdict, reason, checks, numbers
    promotion  a person made a version champion
    rollback   a person restored the previous champion

`champion` is the champion after the event, and `champion_before` the champion before it. Version
numbers belong to one registry; `…_sha256`, the SHA-256 of the files, identifies a model everywhere.
"""

import getpass
import json
import logging
import os
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.params.read import PARAMS
from tasks.tracking.hashes import file_sha256, git_revision

LOOK, PROMOTION, ROLLBACK = "look", "promotion", "rollback"
NEEDED = {"when", "event", "champion_sha256", "champion_before_sha256"}

Line = dict[str, Any]

log = logging.getLogger(__name__)


def read(path: Path) -> list[Line]:
    """Return the lines, oldest first.

    A kill or a full disk can leave an incomplete line. It is skipped, with a warning.
    """
    lines = []
    texts = path.read_bytes().split(b"\n") if path.exists() else []
    for number, text in enumerate(texts, start=1):
        line = _parse(text)
        if line is not None:
            lines.append(line)
        elif text:
            log.info(
                "warn: %s, line %d is incomplete: %d bytes that start with %r. Its event, such as "
                "a look at the test images, is not counted. Mend the line, or remove it",
                path,
                number,
                len(text),
                text[:60].decode(errors="replace"),
            )
    return lines


def append(path: Path, line: Line) -> None:
    """Write one line to the disk. An incomplete last line is ended first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def make_line(event: str, model: str, reason: str, hashes: dict[str, str], **facts: Any) -> Line:
    """Return a line with the time, the user, and the hashes of data, parameters and code."""
    return {
        "when": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "who": _find_user(),
        "event": event,
        "model": model,
        **facts,
        "reason": reason,
        "hashes": {**hashes, "params": file_sha256(PARAMS), "code": git_revision()},
    }


def changes_champion(line: Line) -> bool:
    """Return whether the champion changed with this line."""
    return line["champion_sha256"] != line["champion_before_sha256"]


def find_last_change(lines: Sequence[Line]) -> Line | None:
    """Return the line that made the present champion."""
    return next((line for line in reversed(lines) if changes_champion(line)), None)


def find_previous_champion(lines: Sequence[Line]) -> str | None:
    """Return the SHA-256 of the model that a rollback restores.

    Each further rollback goes one champion further back.
    """
    stack: list[str] = []
    for line in filter(changes_champion, lines):
        before, after = line["champion_before_sha256"], line["champion_sha256"]
        if line["event"] == ROLLBACK and after in stack:
            del stack[stack.index(after) :]
        elif before is not None and stack[-1:] != [before]:
            stack.append(before)  # it became champion without a line
        stack.append(after)
    return stack[-2] if len(stack) > 1 else None


def find_look(
    lines: Sequence[Line],
    sha256: str,
    champion_sha256: str | None,
    test_sha256: str,
    gate: dict[str, Any] | None,
) -> Line | None:
    """Return the last look at this model, with this champion, these test images and this gate."""
    wanted = [sha256, champion_sha256, test_sha256, gate]
    for line in reversed(lines):
        if line["event"] == LOOK:
            before, test = line["champion_before_sha256"], line["hashes"]["test"]
            found = [line["model_sha256"], before, test, line["gate"]]
            if found == wanted:
                return line
    return None


def find_blocking_decision(lines: Sequence[Line], sha256: str, champion_sha256: str) -> Line | None:
    """Return the person's decision that keeps the gate from promoting this model, if any.

    A model that was rolled back stays back until a person promotes it. A champion that a person
    promoted stays champion until a model that was registered later passes the gate.
    """
    for line in reversed(lines):
        if line["event"] == PROMOTION and line["champion_sha256"] == sha256:
            break
        if line["event"] == ROLLBACK and line["champion_before_sha256"] == sha256:
            return line
    change = find_last_change(lines)
    if change is None or change["event"] == LOOK or change["champion_sha256"] != champion_sha256:
        return None
    known = lines[: lines.index(change) + 1]
    keys = ("model_sha256", "champion_before_sha256", "champion_sha256")
    return change if any(line[key] == sha256 for line in known for key in keys) else None


def _parse(text: bytes) -> Line | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) and set(line) >= NEEDED else None


def _find_user() -> str:
    result = subprocess.run(
        ["git", "config", "user.name"], capture_output=True, text=True, check=False
    )
    try:
        return result.stdout.strip() or os.environ.get("USER") or getpass.getuser()
    except (KeyError, OSError):  # the user of a container may have no name
        return f"user {os.getuid()}"
