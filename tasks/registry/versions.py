"""Versions of the registered model: which is champion, and whether the files are unchanged.

The alias `champion` names the champion. A change is written to `data/promotions.jsonl` first, then
to the alias, then to a tag of the version. So the missing tag shows a change that was interrupted,
and the change is finished at the next run.
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
CLASS_NAMES_JSON = "class_names.json"  # an artifact
LONGEST = 100_000  # characters in a tag of a version; MLflow refuses more
LINE = "line "  # prefix of tags that hold a line of promotions.jsonl

DESCRIPTION = (
    "Winners of the comparison. The alias `champion` is the version that predicts and serves, "
    "`challenger` the last winner. A person changes the champion with `python -m flows.promote`."
)

log = logging.getLogger(__name__)


def find_version(client: MlflowClient, name: str, sha256: str) -> ModelVersion | None:
    """Return the version with these model files."""
    query = f"name = '{name}' and tags.{SHA256} = '{sha256}'"
    return next(iter(client.search_model_versions(query)), None)


def find_champion(client: MlflowClient, name: str) -> ModelVersion | None:
    """Return the version with the alias `champion`."""
    version = client.get_registered_model(name).aliases.get(CHAMPION)
    return None if version is None else client.get_model_version(name, version)


def read_history(client: MlflowClient, name: str, path: Path) -> list[Line]:
    """Return the lines of `promotions.jsonl` and of the registry's tags, oldest first.

    Only the registry has the lines of other people's runs.
    """
    lines = _read_tagged_lines(client, name) | {
        line["when"]: line for line in promotions.read(path) if line["model"] == name
    }
    return [lines[when] for when in sorted(lines)]


def finish_change(client: MlflowClient, name: str, lines: list[Line]) -> None:
    """Apply the last change of the champion if the registry does not have it yet.

    The change was interrupted, or the registry is new.
    """
    change = promotions.find_last_change(lines)
    if change is None or change["when"] in _read_tagged_lines(client, name):
        return
    version = find_version(client, name, change["champion_sha256"])
    if version is not None:
        _apply(client, version, change)
        log.info(
            "champion: version %s of %s, by the line of %s by %s in data/promotions.jsonl",
            version.version,
            name,
            change["when"][:10],
            change["who"],
        )


def record(client: MlflowClient, version: ModelVersion, line: Line, path: Path) -> None:
    """Write a line to the file and to a tag of `version`, and move the alias if the line says so.

    Raises `UserError` if the champion has changed since the decision was made.
    """
    alias = client.get_registered_model(version.name).aliases.get(CHAMPION)
    now = None if alias is None else int(alias)
    if now != line["champion_before"]:
        raise UserError(
            f"the champion of {version.name} changed from version {line['champion_before']} to "
            f"{now} meanwhile. This decision was not recorded: run again"
        )
    promotions.append(path, line)
    _apply(client, version, line)


def read_tags(version: ModelVersion) -> dict[str, str]:
    """Return the tags of a version; scores have their names in `metrics.json`.

    If a version has too many classes for a tag, their names stay keys of MLflow.
    """
    classes = json.loads(version.tags.get("classes", "[]"))
    names = [f"{split}_recall_{label}" for split in ("val", "test") for label in classes]
    known = dict(zip(map(make_key, names), names, strict=True))
    return {known.get(key, key): value for key, value in version.tags.items()}


@contextmanager
def fetch(version: ModelVersion) -> Iterator[Path]:
    """Download the MLflow model of a version into a temporary folder.

    Raises `UserError` if files are missing, or have changed since the version was registered.
    """
    name = f"version {version.version} of {version.name}"
    remedy = (
        "Restore its files from a back-up, or make another version champion: "
        'python -m flows.promote --version N --reason "…" (--history lists them)'
    )
    with tempfile.TemporaryDirectory() as scratch:
        uri = f"models:/{version.name}/{version.version}"
        try:
            folder = Path(mlflow.artifacts.download_artifacts(uri, dst_path=scratch))
            received = folder_sha256(find_artifact(folder, "model"))
        except (MlflowException, OSError) as error:
            raise UserError(f"{name} cannot be read: {error}. {remedy}") from error
        expected = version.tags.get(SHA256)
        if received != expected:
            raise UserError(
                f"the files of {name} have changed since it was registered: expected the SHA-256 "
                f"{expected} (tag {SHA256}), received {received}. It is neither used nor "
                f"promoted. {remedy}"
            )
        yield folder


def find_artifact(folder: Path, name: str) -> Path:
    """Return the path of an MLflow model's artifact. Raises `FileNotFoundError` if it has none."""
    artifacts = Model.load(str(folder)).flavors["python_function"].get("artifacts", {})
    path = folder / artifacts.get(name, {}).get("path", f"artifacts/{name}")
    if not path.exists():
        raise FileNotFoundError(f"{path.relative_to(folder)} is missing")
    return path


def replace_artifact(client: MlflowClient, version: ModelVersion, file: Path) -> None:
    """Replace an artifact of a version that is not part of its model files."""
    client.log_model_artifact(version.source.removeprefix("models:/"), str(file), "artifacts")


def describe(client: MlflowClient, version: ModelVersion, text: str) -> None:
    """Describe a version on its MLflow page, and its registered model if it has no description."""
    client.update_model_version(version.name, version.version, text)
    if not client.get_registered_model(version.name).description:
        client.update_registered_model(version.name, DESCRIPTION)


def replace_class_names(client: MlflowClient, version: ModelVersion, names: dict[str, str]) -> None:
    """Store the names of a version's classes for people."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, CLASS_NAMES_JSON)
        file.write_text(json.dumps(names, ensure_ascii=False), encoding="utf-8")
        replace_artifact(client, version, file)


def _read_tagged_lines(client: MlflowClient, name: str) -> dict[str, Line]:
    """Return the lines in the tags of all versions, by their time."""
    versions = client.search_model_versions(f"name = '{name}'", max_results=10_000)
    tags = [tag for version in versions for tag in version.tags.items()]
    lines = [json.loads(value) for key, value in tags if key.startswith(LINE)]
    return {line["when"]: line for line in lines}


def _apply(client: MlflowClient, version: ModelVersion, line: Line) -> None:
    name, number = version.name, version.version
    if promotions.changes_champion(line):
        client.set_registered_model_alias(name, CHAMPION, number)
    if line["event"] == promotions.LOOK:
        gate = f"{line['verdict']}: {line['reason']}"
        client.set_model_version_tag(name, number, "gate", gate)
    client.set_model_version_tag(name, number, LINE + line["when"], _shorten(line))


def _shorten(line: Line) -> str:
    """Return a line that fits a tag: with very many classes, the numbers of each are left out."""
    text = json.dumps(line)
    if len(text) <= LONGEST:
        return text
    numbers = {name: value for name, value in line["numbers"].items() if name != "recalls"}
    return json.dumps(line | {"numbers": numbers})
