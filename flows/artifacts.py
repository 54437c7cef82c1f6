"""The artifacts of a run on Prefect's pages: a summary, a table of stages, training progress."""

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
RESULTS = {
    "comparison": "data/comparison.csv",
    "models": "data/models/",
    "splits": "data/splits.csv",
    "quarantine": "data/quarantine.csv",
}
EPOCH = re.compile(r"epoch\s+(\d+)/(\d+)\b")

log = logging.getLogger(__name__)


class Progress:
    """The progress bar of one stage on Prefect's page. Lines such as `epoch  3/15` move it."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.artifact: UUID | None = None

    def note(self, line: str) -> None:
        """Move the bar if the line reports an epoch.

        A server that does not answer stops the bar and never the training.
        """
        found = EPOCH.match(line)
        if not found:
            return
        percent = 100 * int(found[1]) / int(found[2])
        description = f"{self.stage}: {line}"
        try:
            if self.artifact is None:
                self.artifact = create_progress_artifact(
                    percent, key=make_key(self.stage), description=description
                )
            else:
                update_progress_artifact(self.artifact, percent, description=description)
        except httpx.HTTPError as error:
            log.warning("the progress of %s is not shown: %s", self.stage, error)


def record_run(
    states: dict[str, State], seconds: dict[str, float], changed: dict[str, list], images: str
) -> None:
    """Create the artifacts `retrain`, a summary, and `stages`, a table."""
    rows = [
        {
            "stage": stage,
            "state": state.name,
            "seconds": round(seconds[stage], 1) if stage in seconds else "",
            "changed": describe_changes(changed.get(stage, [])),
            "message": (state.message or "").partition("\n")[0],
        }
        for stage, state in states.items()
    ]
    description = "What happened to each stage, and why it ran"
    create_table_artifact(rows, key="stages", description=description)
    is_complete = all(state.is_completed() for state in states.values())
    create_markdown_artifact(summarize_run(rows, images, is_complete), key="retrain")


def summarize_run(rows: list[dict], images: str, is_complete: bool) -> str:
    """Return the run in Markdown: short report, failures, changes, and where the results are."""
    report = REPORT.read_text() if is_complete and REPORT.exists() else ""
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
        "Where": "\n".join(f"- {what}: {where}" for what, where in find_results().items()),
    }
    return "\n\n".join(
        f"### {title}\n\n{text}" if title else text for title, text in sections.items() if text
    )


def find_results() -> dict[str, str]:
    """Return where the existing results are: report, tables, models, runs and registry."""
    report, store = REPORT.with_suffix(".html"), os.environ.get("MLFLOW_TRACKING_URI", "")
    found = {what: path for what, path in RESULTS.items() if Path(path).exists()}
    if report.exists():
        found = {"report": str(report.resolve())} | found
    if store or Path("mlflow.db").exists():
        address = servers.mask_secrets(store or "sqlite:///mlflow.db")
        pages = "" if address.startswith("http") else " (make ui: http://127.0.0.1:5000)"
        found["runs and registry"] = f"{address}{pages}"
    return found


def describe_changes(changes: list) -> str:
    """Return DVC's status of one stage in words: `data/raw modified, train.epochs modified`."""
    words: list[str] = []
    for change in changes:
        for kind, found in change.items() if isinstance(change, dict) else [(change, {})]:
            if isinstance(found, dict) and found:
                words += [word for path, how in found.items() for word in _name_changes(path, how)]
            else:
                words.append(str(kind))
    return ", ".join(dict.fromkeys(words))


def _name_changes(path: str, how: object) -> list[str]:
    if isinstance(how, dict):
        return [f"{name} {kind}" for name, kind in how.items()]
    return [f"{path} {how}"]


def make_key(stage: str) -> str:
    """Return a stage's name with the characters that Prefect allows in the key of an artifact."""
    return re.sub(r"[^a-z0-9]+", "-", stage.lower())
