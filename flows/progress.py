"""Read the progress of a running stage, and the usage of its last run (`tasks/progress.py`).

`.cache/logs/<stage>.log` has the lines of its last run.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from tasks.progress import PROGRESS, USAGE

LOGS = Path(".cache/logs")


@dataclass(frozen=True)
class Training:
    """How far a training is. `left` is in seconds."""

    share: float
    text: str
    left: float | None


def describe_seconds(seconds: float) -> str:
    """Return a time such as 0.4 s, 35 s, 2:05 or 1:02:05."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def log_file(stage: str) -> Path:
    """Return the file with the lines of a stage."""
    return LOGS / f"{stage}.log"


EPOCH = re.compile(r"epoch\s+(\d+)/(\d+)\b\s*(.*)")


def parse_epoch(line: str, seconds: float) -> Training | None:
    """Return the progress in a line such as `epoch  3/15  loss 0.4`; None for any other line.

    `seconds` is the time since the stage began.
    """
    found = EPOCH.match(line)
    if not found:
        return None
    epoch, epochs = int(found[1]), int(found[2])
    scores = dict(re.findall(r"(\w+) (\d[\d.]*)", found[3]))
    names = ("loss", "val_accuracy" if "val_accuracy" in scores else "val_loss")
    shown = [name for name in names if name in scores]
    text = "  ".join([f"epoch {epoch}/{epochs}", *(f"{name} {scores[name]}" for name in shown)])
    own = re.search(r"\s(\d+\.\d) s\b", found[3])  # seconds of this epoch
    each = float(own[1]) if own else seconds / epoch
    return Training(epoch / epochs, text, each * (epochs - epoch))


BAR = re.compile(r"(?:(.*?): +)?\d+%\|.*\| *(\d+)/(\d+) \[[\d:]+<([\d:]+)?")


def parse_bar(line: str) -> Training | None:
    """Return the progress in a line of tqdm, such as `files:  40%|██  | 4/10 [00:02<00:03, …]`."""
    found = BAR.match(line)
    if not found:
        return None
    done, total = int(found[2]), int(found[3])
    parts = enumerate(reversed(found[4].split(":"))) if found[4] else ()
    left = float(sum(60**power * int(part) for power, part in parts))
    return Training(done / total, f"{found[1] or ''} {done:,}/{total:,}".strip(), left)


def read_training(stage: str, since: float) -> Training | None:
    """Return the progress of a training; None without progress since the time `since`."""
    found = _read(PROGRESS / f"{stage}.json")
    epoch, epochs = found.get("epoch"), found.get("epochs")
    if found.get("updated", 0) < since or epoch is None or not epochs:
        return None
    words = [str(found["phase"])] if found.get("phase") else []
    words.append(f"epoch {epoch}/{epochs}")
    if found.get("loss") is not None:
        words.append(f"loss {found['loss']:.3f}")
    if found.get("score") is not None:
        words.append(f"{found.get('metric', 'score')} {found['score']:.3f}")
    seconds = found.get("epoch_seconds")
    left = (epochs - epoch) * seconds if seconds is not None else None
    return Training(epoch / epochs, "  ".join(words), left)


def read_usage(stage: str) -> dict:
    """Return the time and memory of the last run of a stage, or {}."""
    return _read(USAGE / f"{stage}.json")


def _read(file: Path) -> dict:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
