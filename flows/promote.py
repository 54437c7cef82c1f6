"""A person's word on who is champion: promote a version, roll back to the champion before, or read the history.

`python -m flows.promote --version 3 --reason "…"`, `--rollback --reason "…"`, `--history`. A decision stays until a model
that was not yet known passes the gate; the next run tells it in the report. Files that are not what was registered are refused.
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
    """Make a version champion; return in words what was done. Raises `UserError`, and changes nothing, where that cannot be."""
    return _change(client, promotions.PROMOTION, _version(client, name, number), reason)


def roll_back(client: MlflowClient, name: str, reason: str) -> str:
    """Make the champion before champion again. Raises `UserError`, and changes nothing, where that cannot be."""
    lines = versions.read_history(client, name, PROMOTIONS)
    champion = versions.find_champion(client, name)
    if champion is None:
        raise UserError(f"{name} has no champion to roll back from: name one with --version")
    change = promotions.find_last_change(lines)
    told = change is not None and change["champion_sha256"] == champion.tags.get(versions.SHA256)
    sha256 = (
        promotions.find_previous_champion(lines)
        if told or change is None
        else change["champion_sha256"]
    )
    version = sha256 and versions.find_version(client, name, sha256)
    if not version:
        lacking = (
            f"model {sha256[:8]} is in {PROMOTIONS}, but not in this registry"
            if sha256
            else f"{PROMOTIONS} knows none"
        )
        raise UserError(
            f"no champion before version {champion.version}: {lacking}. Name one with --version"
        )
    return _change(client, promotions.ROLLBACK, version, reason)


def tell_history(lines: Sequence[Line], champion: ModelVersion | None) -> Iterator[str]:
    """Yield the champion of each span of days, and then every line, as tables."""
    if not lines:
        yield f"no promotions yet: {PROMOTIONS} and the registry have none"
        return
    changes = [line for line in lines if promotions.changes_champion(line)]
    yield "champion        from              until"
    for line, following in zip(changes, [*changes[1:], None], strict=True):
        until = following["when"][:16].replace("T", " ") if following else "now"
        yield f"{_named(line['champion'], line['champion_sha256']):<15} {line['when'][:16].replace('T', ' ')}  {until}"
    now = champion and champion.tags.get(versions.SHA256)
    if champion is not None and (not changes or changes[-1]["champion_sha256"] != now):
        yield f"{_named(champion.version, now):<15} champion in the registry today, by something that left no line"
    yield ""
    yield "when (UTC)        what                 version         champion then    who: why"
    for line in lines:
        event = line["event"] if line["event"] != promotions.LOOK else f"look: {line['verdict']}"
        then = _named(line["champion"], line["champion_sha256"])
        version = _named(line["version"], line["model_sha256"])
        yield f"{line['when'][:16].replace('T', ' ')}  {event:<20} {version:<15} {then:<15}  {line['who']}: {_why(line)}"


def _change(client: MlflowClient, event: str, version: ModelVersion, reason: str) -> str:
    champion = versions.find_champion(client, version.name)
    number, before = int(version.version), int(champion.version) if champion else None
    if before == number:
        raise UserError(f"version {before} is the champion of {version.name} already")
    with versions.fetch(version):
        pass  # raises where the files are not those that were registered
    scores = versions.read_tags(version)
    line = promotions.make_line(
        event,
        version.name,
        reason,
        {"splits": file_sha256(SPLITS)} if SPLITS.exists() else {},
        version=number,
        architecture=version.tags.get("architecture"),
        model_sha256=version.tags[versions.SHA256],
        champion_before=before,
        champion_before_sha256=champion.tags.get(versions.SHA256) if champion else None,
        champion=number,
        champion_sha256=version.tags[versions.SHA256],
        numbers={
            name: float(value)
            for name, value in scores.items()
            if name.startswith(("val_", "test_"))
        },
    )
    versions.record(client, version, line, PROMOTIONS)
    if RECEIPT.exists():  # DVC sees it changed, so the next run tells this in the report
        receipt = json.loads(RECEIPT.read_text(encoding="utf-8"))
        RECEIPT.write_text(
            json.dumps(receipt | {"champion": number, "champion_before": before}, indent=2) + "\n"
        )
    return f"champion of {version.name}: version {number}, {event} in place of {f'version {before}' if before else 'none'}"


def _version(client: MlflowClient, name: str, number: int) -> ModelVersion:
    known = {
        int(version.version): version
        for version in client.search_model_versions(f"name = '{name}'")
    }
    if number not in known:
        raise UserError(
            f"{name} has no version {number}; known are {', '.join(map(str, sorted(known))) or 'none'}"
        )
    return known[number]


def _why(line: Line) -> str:
    """Return a person's reason, or the main numbers of a look; all of them are in the file."""
    if line["event"] != promotions.LOOK:
        return line["reason"]
    numbers, failed = (
        line["numbers"],
        [check["name"] for check in line["checks"] if not check["met"]],
    )
    against = ""
    if "difference" in numbers:
        low, high = numbers["difference_low"], numbers["difference_high"]
        against = f" against {numbers['champion_macro_f1']:.3f} ({low:+.3f} to {high:+.3f})"
    words = f"macro F1 {numbers.get('challenger_macro_f1', numbers['macro_f1']):.3f}{against}"
    return f"{words}; not met: {', '.join(failed)}" if failed else words


def _named(version: int | None, sha256: str | None) -> str:
    return "none" if version is None else f"{version} ({(sha256 or '?')[:8]})"


def _client() -> MlflowClient | None:
    """Return the registry; None where the default one is not there, and must not be made by asking for it."""
    if "MLFLOW_TRACKING_URI" not in os.environ and not DEFAULT_FILE.exists():
        return None
    runs.refuse_unreachable()
    runs.open_store()
    return MlflowClient()


def main() -> None:
    """Read the command line and decide."""
    logging.basicConfig(level="WARNING", format="%(message)s", stream=sys.stdout)
    logging.getLogger("tasks").setLevel("INFO")
    arguments = parse()
    try:
        with exit_with_message():
            decide(arguments)
    except (
        MlflowException
    ) as error:  # the registry's own words, such as that its server does not answer
        sys.exit(f"error: {servers.mask_secrets(str(error))}")


def decide(arguments: argparse.Namespace) -> None:
    """Do what the command line says, and print what was done."""
    name = load_params().register_.model
    client = _client()
    if arguments.history:
        lines = (
            versions.read_history(client, name, PROMOTIONS)
            if client
            else promotions.read(PROMOTIONS)
        )
        print(
            "\n".join(tell_history(lines, versions.find_champion(client, name) if client else None))
        )
    elif client is None:
        raise UserError(
            f"{DEFAULT_FILE} is missing, so there is no registry here; make run fills one, or set MLFLOW_TRACKING_URI"
        )
    elif arguments.rollback:
        print(roll_back(client, name, arguments.reason))
    else:
        print(promote(client, name, arguments.version, arguments.reason))


def parse() -> argparse.Namespace:
    """Read the command line; a decision needs a reason."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.promote", description="Say who is champion, and read who was."
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--version", type=int, metavar="N", help="make version N the champion")
    what.add_argument(
        "--rollback", action="store_true", help="make the champion before this one champion again"
    )
    what.add_argument(
        "--history",
        action="store_true",
        help="who was champion when, and every look at the test images",
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
