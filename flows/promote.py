"""Choose the champion by hand: promote a version, restore the previous champion, or list both.

    python -m flows.promote --version 3 --reason "…"
    python -m flows.promote --rollback --reason "…"
    python -m flows.promote --history

A person's decision holds until a model that was registered later passes the gate. The report of the
next run shows the decision. A version whose files changed since it was registered is refused.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from tasks.errors import UserError, exit_with_message
from tasks.params.whole import load_params
from tasks.registry import promotions, versions
from tasks.registry.promotions import Line
from tasks.tracking import runs, servers
from tasks.tracking.hashes import file_sha256
from tasks.tracking.store import DEFAULT_FILE

PROMOTIONS = Path("data/promotions.jsonl")
RECEIPT = Path("data/registration.json")
SPLITS = Path("data/splits.csv")


def promote(client: MlflowClient, name: str, number: int, reason: str) -> str:
    """Make a version champion, and describe the change.

    Raises `UserError` and changes nothing if the version cannot be champion.
    """
    return _change(client, promotions.PROMOTION, _find_version(client, name, number), reason)


def roll_back(client: MlflowClient, name: str, reason: str) -> str:
    """Restore the previous champion, and describe the change.

    Raises `UserError` and changes nothing if there is no previous champion.
    """
    lines = versions.read_history(client, name, PROMOTIONS)
    champion = versions.find_champion(client, name)
    if champion is None:
        raise UserError(f"{name} has no champion yet: choose a version with --version")
    sha256 = _find_previous_champion(lines, champion)
    version = sha256 and versions.find_version(client, name, sha256)
    if not version:
        lacking = f"{PROMOTIONS} lists none"
        if sha256:
            lacking = f"model {sha256[:8]} is in {PROMOTIONS}, but not in this registry"
        raise UserError(
            f"no previous champion to restore: {lacking}. Choose a version with --version"
        )
    return _change(client, promotions.ROLLBACK, version, reason)


def _find_previous_champion(lines: Sequence[Line], champion: ModelVersion) -> str | None:
    """Return the hash of the previous champion.

    If the last change is not in the file, this is the last champion in the file.
    """
    change = promotions.find_last_change(lines)
    if change is not None and change["champion_sha256"] != champion.tags.get(versions.SHA256):
        return change["champion_sha256"]
    return promotions.find_previous_champion(lines)


def describe_history(lines: Sequence[Line], champion: ModelVersion | None) -> Iterator[str]:
    """Yield a table of the champions and their times, and a table of all events."""
    if not lines:
        yield f"no promotions yet: {PROMOTIONS} and the registry have none"
        return
    changes = [line for line in lines if promotions.changes_champion(line)]
    yield "champion        from              until"
    ends = [*map(_minute, changes[1:]), "now"]
    for line, until in zip(changes, ends, strict=False):
        yield f"{_champion_of(line):<15} {_minute(line)}  {until}"
    now = champion and champion.tags.get(versions.SHA256)
    if champion is not None and (not changes or changes[-1]["champion_sha256"] != now):
        name = _name_model(champion.version, now)
        yield f"{name:<15} champion in the registry now; no line says who chose it"
    yield ""
    yield "when (UTC)        what                 version         champion then    who: why"
    for line in lines:
        event = line["event"]
        event = f"look: {line['verdict']}" if event == promotions.LOOK else event
        version = _name_model(line["version"], line["model_sha256"])
        columns = f"{event:<20} {version:<15} {_champion_of(line):<15}"
        yield f"{_minute(line)}  {columns}  {line['who']}: {_describe_reason(line)}"


def _minute(line: Line) -> str:
    return line["when"][:16].replace("T", " ")


def _champion_of(line: Line) -> str:
    return _name_model(line["champion"], line["champion_sha256"])


def _change(client: MlflowClient, event: str, version: ModelVersion, reason: str) -> str:
    champion = versions.find_champion(client, version.name)
    number, before = int(version.version), int(champion.version) if champion else None
    if before == number:
        raise UserError(f"version {before} is the champion of {version.name} already")
    with versions.fetch(version):
        pass  # raises if the files are not those that were registered
    sha256 = version.tags[versions.SHA256]
    scores = versions.read_tags(version).items()
    line = promotions.make_line(
        event,
        version.name,
        reason,
        {"splits": file_sha256(SPLITS)} if SPLITS.exists() else {},
        version=number,
        architecture=version.tags.get("architecture"),
        model_sha256=sha256,
        champion_before=before,
        champion_before_sha256=champion.tags.get(versions.SHA256) if champion else None,
        champion=number,
        champion_sha256=sha256,
        numbers={
            name: float(value) for name, value in scores if name.startswith(("val_", "test_"))
        },
    )
    versions.record(client, version, line, PROMOTIONS)
    _note_in_receipt({"champion": number, "champion_before": before})
    replaced = f"version {before}" if before else "none"
    return f"champion of {version.name}: version {number}, {event} in place of {replaced}"


def _note_in_receipt(change: dict[str, int | None]) -> None:
    """Change the receipt of the last run, so that DVC writes the report again."""
    if RECEIPT.exists():
        receipt = json.loads(RECEIPT.read_text(encoding="utf-8"))
        RECEIPT.write_text(json.dumps(receipt | change, indent=2) + "\n")


def _find_version(client: MlflowClient, name: str, number: int) -> ModelVersion:
    found = client.search_model_versions(f"name = '{name}'")
    known = {int(version.version): version for version in found}
    if number not in known:
        listed = ", ".join(map(str, sorted(known))) or "none"
        raise UserError(f"{name} has no version {number}; known are {listed}")
    return known[number]


def _describe_reason(line: Line) -> str:
    """Return a person's reason, or the main numbers of the gate; the file has all of them."""
    if line["event"] != promotions.LOOK:
        return line["reason"]
    numbers = line["numbers"]
    failed = [check["name"] for check in line["checks"] if not check["met"]]
    against = ""
    if "difference" in numbers:
        low, high = numbers["difference_low"], numbers["difference_high"]
        against = f" against {numbers['champion_macro_f1']:.3f} ({low:+.3f} to {high:+.3f})"
    score = f"macro F1 {numbers.get('challenger_macro_f1', numbers['macro_f1']):.3f}{against}"
    return f"{score}; not met: {', '.join(failed)}" if failed else score


def _name_model(version: int | None, sha256: str | None) -> str:
    return "none" if version is None else f"{version} ({(sha256 or '?')[:8]})"


def _open_registry() -> MlflowClient | None:
    """Return a client of the registry, or None if the default registry does not exist.

    MLflow would create it.
    """
    if "MLFLOW_TRACKING_URI" not in os.environ and not DEFAULT_FILE.exists():
        return None
    runs.refuse_unreachable()
    runs.open_store()
    return MlflowClient()


def main() -> None:
    """Do what the command line asks for."""
    logging.basicConfig(level="WARNING", format="%(message)s", stream=sys.stdout)
    logging.getLogger("tasks").setLevel("INFO")
    arguments = parse_arguments()
    try:
        with exit_with_message():
            decide(arguments)
    except MlflowException as error:  # such as a server of the registry that does not answer
        sys.exit(f"error: {servers.mask_secrets(str(error))}")


def decide(arguments: argparse.Namespace) -> None:
    """Change the champion or list the history, and print the result."""
    name = load_params().register_.model
    client = _open_registry()
    if arguments.history:
        recorded = versions.read_history(client, name, PROMOTIONS) if client else None
        lines = promotions.read(PROMOTIONS) if recorded is None else recorded
        champion = versions.find_champion(client, name) if client else None
        print("\n".join(describe_history(lines, champion)))
    elif client is None:
        raise UserError(
            f"{DEFAULT_FILE} is missing, so there is no registry here: "
            "make run fills one, or set MLFLOW_TRACKING_URI"
        )
    elif arguments.rollback:
        print(roll_back(client, name, arguments.reason))
    else:
        print(promote(client, name, arguments.version, arguments.reason))


def parse_arguments() -> argparse.Namespace:
    """Read the command line; a change needs a reason."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.promote", description="Choose the champion, or list the champions."
    )
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--version", type=int, metavar="N", help="make version N the champion")
    group.add_argument("--rollback", action="store_true", help="restore the previous champion")
    group.add_argument(
        "--history",
        action="store_true",
        help="list the champions, and every evaluation on the test images",
    )
    parser.add_argument(
        "--reason", default="", help="why, in words that others understand in a year"
    )
    arguments = parser.parse_args()
    if not arguments.history and not arguments.reason.strip():
        parser.error('a decision needs a reason: --reason "…"')
    return arguments


if __name__ == "__main__":
    main()
