"""MLflow's model registry: versions, who is champion, and files that are what they were when they were registered.

The alias `champion` says who is champion. A change of it is written first to `data/promotions.jsonl`, then to the alias, then
to a tag of the version; so one that was interrupted is noticed by its missing tag, and finished.
"""

import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from tasks.errors import UserError
from tasks.registry import promotions
from tasks.registry.promotions import Line
from tasks.tracking.hashes import folder_sha256
from tasks.tracking.keys import make_key

CHAMPION, CHALLENGER = "champion", "challenger"
SHA256 = "model_sha256"
LONGEST = 100_000  # characters of a tag of a version, as MLflow takes them
LINE = "line "  # what the names of tags that hold a line of promotions.jsonl begin with

log = logging.getLogger(__name__)


def find_version(client: MlflowClient, name: str, sha256: str) -> ModelVersion | None:
    """Return the version made of these model files."""
    return next(
        iter(client.search_model_versions(f"name = '{name}' and tags.{SHA256} = '{sha256}'")), None
    )


def find_champion(client: MlflowClient, name: str) -> ModelVersion | None:
    """Return the version that has the alias `champion`."""
    version = client.get_registered_model(name).aliases.get(CHAMPION)
    return None if version is None else client.get_model_version(name, version)


def history(client: MlflowClient, name: str, path: Path) -> list[Line]:
    """Return the lines of `promotions.jsonl` and those that only the registry has, as after other people's runs; oldest first."""
    lines = _tagged(client, name) | {
        line["when"]: line for line in promotions.read(path) if line["model"] == name
    }
    return [lines[when] for when in sorted(lines)]


def settle(client: MlflowClient, name: str, lines: list[Line]) -> None:
    """Finish a change of the champion that the registry does not know: an interrupted one, or all in an empty registry."""
    change = promotions.last_change(lines)
    if change is None or change["when"] in _tagged(client, name):
        return
    version = find_version(client, name, change["champion_sha256"])
    if version is not None:
        _apply(client, version, change)
        log.info(
            "champion: version %s of %s, as data/promotions.jsonl says of %s by %s",
            version.version, name, change["when"][:10], change["who"],
        )  # fmt: skip


def record(client: MlflowClient, version: ModelVersion, line: Line, path: Path) -> None:
    """Write a line that concerns `version` to the file and to a tag, and move the alias if it says so.

    Raises `UserError` if the champion is another one than when the decision was made.
    """
    now = client.get_registered_model(version.name).aliases.get(CHAMPION)
    now = None if now is None else int(now)
    if now != line["champion_before"]:
        raise UserError(
            f"the champion of {version.name} changed from version {line['champion_before']} to {now} meanwhile: nothing was "
            "changed here, run again"
        )
    promotions.append(path, line)
    _apply(client, version, line)


def read_tags(version: ModelVersion) -> dict[str, str]:
    """Return the tags of a version, its scores by their names in `metrics.json`.

    Of very many classes, which no tag can list, the names stay keys of MLflow.
    """
    classes = json.loads(version.tags.get("classes", "[]"))
    names = [f"{part}_recall_{label}" for part in ("val", "test") for label in classes]
    known = dict(zip(map(make_key, names), names, strict=True))
    return {known.get(key, key): value for key, value in version.tags.items()}


@contextmanager
def fetched(version: ModelVersion) -> Iterator[Path]:
    """Have the files of a version in a passing folder, as an MLflow model whose own model files are what they were.

    Raises `UserError` when they are missing, or are not those that were registered.
    """
    named = f"version {version.version} of {version.name}"
    remedy = (
        "Bring its files back from a back-up, or make another version champion: "
        'python -m flows.promote --version N --reason "…" (--history lists them)'
    )
    with tempfile.TemporaryDirectory() as scratch:
        try:
            folder = Path(
                mlflow.artifacts.download_artifacts(
                    f"models:/{version.name}/{version.version}", dst_path=scratch
                )
            )
            received = folder_sha256(artifact(folder, "model"))
        except (MlflowException, OSError) as error:
            raise UserError(f"{named} cannot be read: {error}. {remedy}") from error
        expected = version.tags.get(SHA256)
        if received != expected:
            raise UserError(
                f"{named} is not what was registered: its model files have the SHA-256 {received}, its tag {SHA256} says "
                f"{expected}. It is neither compared nor promoted. {remedy}"
            )
        yield folder


def artifact(folder: Path, name: str) -> Path:
    """Return where an MLflow model keeps one of its artefacts. Raises `FileNotFoundError` where it has none of this name."""
    artifacts = Model.load(str(folder)).flavors["python_function"].get("artifacts", {})
    path = folder / artifacts.get(name, {}).get("path", f"artifacts/{name}")
    if not path.exists():
        raise FileNotFoundError(f"{path.relative_to(folder)} is missing")
    return path


def replace_artifact(client: MlflowClient, version: ModelVersion, file: Path) -> None:
    """Put another file in place of an artefact of a version that is no part of its model."""
    client.log_model_artifact(version.source.removeprefix("models:/"), str(file), "artifacts")


def _tagged(client: MlflowClient, name: str) -> dict[str, Line]:
    versions = client.search_model_versions(f"name = '{name}'", max_results=10_000)
    values = [
        value for version in versions for key, value in version.tags.items() if key.startswith(LINE)
    ]
    return {line["when"]: line for line in map(json.loads, values)}


def _shorten(line: Line) -> str:
    """Return a line as a tag takes it: of very many classes it has no numbers of each, which the file keeps."""
    text = json.dumps(line)
    if len(text) > LONGEST:
        text = json.dumps(
            line
            | {
                "numbers": {
                    name: value for name, value in line["numbers"].items() if name != "recalls"
                }
            }
        )
    return text


def _apply(client: MlflowClient, version: ModelVersion, line: Line) -> None:
    if promotions.changes(line):
        client.set_registered_model_alias(version.name, CHAMPION, version.version)
    if line["event"] == promotions.LOOK:
        client.set_model_version_tag(
            version.name, version.version, "gate", f"{line['verdict']}: {line['reason']}"
        )
    client.set_model_version_tag(version.name, version.version, LINE + line["when"], _shorten(line))
