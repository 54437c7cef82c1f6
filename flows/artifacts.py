"""What Prefect's pages show of a run beside its log: a summary, a table of the stages, the progress of trainings."""

import logging
import os
import re
from pathlib import Path
from uuid import UUID

import httpx
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.states import State

from tasks.tracking import servers

REPORT = Path("data/report/report.md")
MADE = {
    "comparison": "data/comparison.csv",
    "models": "data/models/",
    "splits": "data/splits.csv",
    "quarantine": "data/quarantine.csv",
}
EPOCH = re.compile(r"epoch\s+(\d+)/(\d+)\b")

log = logging.getLogger(__name__)


class Progress:
    """The bar of one stage, moved by its lines that begin like `epoch  3/15`."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.artefact: UUID | None = None

    def note(self, line: str) -> None:
        """Move the bar if the line tells an epoch; a server that does not answer costs the bar, never the training."""
        found = EPOCH.match(line)
        if not found:
            return
        percent = 100 * int(found[1]) / int(found[2])
        try:
            if self.artefact is None:
                self.artefact = create_progress_artifact(
                    percent, key=key(self.stage), description=f"{self.stage}: {line}"
                )
            else:
                update_progress_artifact(
                    self.artefact, percent, description=f"{self.stage}: {line}"
                )
        except httpx.HTTPError as error:
            log.warning("the progress of %s is not shown: %s", self.stage, error)


def tell(
    states: dict[str, State], seconds: dict[str, float], changed: dict[str, list], images: str
) -> None:
    """Leave the summary `retrain` and the table `stages`."""
    rows = [
        {
            "stage": stage,
            "state": state.name,
            "seconds": round(seconds[stage], 1) if stage in seconds else "",
            "changed": describe(changed.get(stage, [])),
            "message": (state.message or "").partition("\n")[0],
        }
        for stage, state in states.items()
    ]
    create_table_artifact(
        rows, key="stages", description="What happened to each stage, and why it ran"
    )
    create_markdown_artifact(
        summary(rows, images, all(state.is_completed() for state in states.values())), key="retrain"
    )


def summary(rows: list[dict], images: str, complete: bool) -> str:
    """Return the run in Markdown: verdict and comparison, what changed, what failed, where everything is."""
    report = REPORT.read_text() if complete and REPORT.exists() else ""
    changes = [f"- {row['stage']}: {row['changed']}" for row in rows if row["changed"]]
    failures = [
        f"- **{row['stage']}** {row['state']}: {row['message']}"
        for row in rows
        if row["state"] in ("Failed", "Ended", "NotRun")
    ]
    sections = {
        "": report,
        "What failed": "\n".join(failures),
        "What changed": "\n".join([f"- {images}", *changes] if images else changes),
        "Where": "\n".join(f"- {what}: {where}" for what, where in places().items()),
    }
    return "\n\n".join(
        f"### {title}\n\n{text}" if title else text for title, text in sections.items() if text
    )


def places() -> dict[str, str]:
    """Return where a person finds what the pipeline made and is there."""
    report, store = REPORT.with_suffix(".html"), os.environ.get("MLFLOW_TRACKING_URI", "")
    made = {what: path for what, path in MADE.items() if Path(path).exists()}
    if report.exists():
        made = {"report": str(report.resolve())} | made
    if store or Path("mlflow.db").exists():
        shown = servers.mask_secrets(store or "sqlite:///mlflow.db")
        made["runs and registry"] = (
            shown if shown.startswith("http") else f"{shown} (make ui: http://127.0.0.1:5000)"
        )
    return made


def describe(changes: list) -> str:
    """Return what `dvc status` says of one stage as a sentence, such as `data/raw modified, train.epochs modified`."""
    words: list[str] = []
    for change in changes:
        groups = change if isinstance(change, dict) else {change: {}}
        for kind, found in groups.items():
            words += [f"{kind}"] if not isinstance(found, dict) or not found else []
            words += [
                word
                for path, how in (found.items() if isinstance(found, dict) else ())
                for word in _words(path, how)
            ]
    return ", ".join(dict.fromkeys(words))


def _words(path: str, how: object) -> list[str]:
    return (
        [f"{name} {kind}" for name, kind in how.items()]
        if isinstance(how, dict)
        else [f"{path} {how}"]
    )


def key(stage: str) -> str:
    """Return a stage's name in the letters that Prefect allows in a key."""
    return re.sub(r"[^a-z0-9]+", "-", stage.lower())
