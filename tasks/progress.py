"""Record how far a running stage is, and what a finished stage cost, in `.cache`.

A display and the estimates of a plan read these files. They never change a result, so no stage
depends on this module in `dvc.yaml`. A stage has the name that DVC gives it, such as `train@cnn_a`.

`.cache/progress/<stage>.json` is written when a training starts, at a phase, and after an epoch:

    stage, started, updated   times in seconds since 1970
    epoch, epochs             epochs that are finished, and epochs at most
    phase                     "features", "phase 2" or "predicting"; absent in a plain training
    loss, val_loss            of the last epoch, absent before it
    score, metric             validation score of the last epoch, and its name such as val_accuracy
    epoch_seconds             time of the last epoch

`.cache/usage/<stage>.json` is written when a stage of the pipeline has finished:

    stage, finished           time in seconds since 1970
    seconds                   time of the whole process
    peak_mb                   peak memory of the process, or of its largest child process
"""

import json
import os
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path

from tasks import machine

PROGRESS, USAGE = Path(".cache/progress"), Path(".cache/usage")


def find_stage(default: str) -> str:
    """Return the name of the running stage, or `default` if DVC did not start it."""
    return os.environ.get("DVC_STAGE") or default


def write_progress(stage: str, **facts: object) -> None:
    """Replace the progress of a stage by these facts."""
    _write(PROGRESS / f"{stage}.json", {"stage": stage, "updated": time.time(), **facts})


def write_usage(stage: str) -> None:
    """Record the time and the peak memory of this process, which ran a stage to its end."""
    unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes, Linux kilobytes
    peaks = [
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    facts = {
        "stage": stage,
        "finished": time.time(),
        "seconds": round(time.monotonic() - machine.STARTED, 1),
        "peak_mb": round(max(peaks) / unit),
    }
    _write(USAGE / f"{stage}.json", facts)


def _write(file: Path, facts: dict[str, object]) -> None:
    """Write a file that readers never see half written."""
    part = file.with_suffix(f".{os.getpid()}.part")
    with suppress(OSError):  # a training does not stop because a display has nothing to show
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(facts) + "\n", encoding="utf-8")
        part.replace(file)
