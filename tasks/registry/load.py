"""Find the model that a user names, and load it.

    champion, challenger      the version of the registered model with this alias
    3                         this version
    data/models/cnn_a         a folder that training wrote; thresholds are in data/results/cnn_a
    data/ensembles/models/x   an ensemble; thresholds are in data/ensembles/results/x
    imagenet:VGG16            a classifier of keras.applications with its own 1,000 classes

The registry is `MLFLOW_TRACKING_URI`, by default `mlflow.db` in the current folder. A version is
refused if its files have changed since it was registered.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from tasks.errors import UserError
from tasks.imaging.picture import NO_LIMITS, Limits
from tasks.inference.predictor import Predictor, from_folder
from tasks.params.model_input import DEFAULT_LIMITS
from tasks.params.read import PARAMS
from tasks.params.whole import load_params
from tasks.registry import versions
from tasks.results import THRESHOLDS_JSON
from tasks.tracking import runs, servers, store
from tasks.tracking.hashes import folder_sha256

IMAGENET = "imagenet:"


@dataclass(frozen=True)
class ModelFiles:
    """The files of a registered version, or of a folder that training wrote."""

    name: str
    folder: Path  # the model itself
    sha256: str  # SHA-256 of the folder
    thresholds: Path | None = None
    seen: Path | None = None  # the images that a registered version was given
    class_names: dict[str, str] = field(default_factory=dict)  # for people, of some classes
    version: ModelVersion | None = None  # None for a folder


def load_predictor(
    model: str = versions.CHAMPION,
    name: str | None = None,
    limits: Limits = NO_LIMITS,
    explain: bool = False,
) -> Predictor:
    """Return the predictor of a model, warmed up.

    `name` is the name of the registered model, by default `register.model` of params.yaml. A file
    may be as large as `limits` and `validate` of params.yaml allow.

    Raises `UserError` if there is no such model, its files are refused, or `explain` is true and
    the model has no heat maps.
    """
    limits = narrow_limits(read_limits(), limits)
    if model.startswith(IMAGENET):
        from tasks.inference import imagenet

        predictor = imagenet.load(model.removeprefix(IMAGENET), limits, explain)
    else:
        with open_model(model, name) as files:
            predictor = read_predictor(files, limits, explain)
    predictor.warm_up()
    return predictor


def read_limits() -> Limits:
    """Return the limits of a file in `params.yaml`, or the default limits if there is none."""
    if not PARAMS.exists():
        return DEFAULT_LIMITS
    params = load_params().validate_
    return Limits(params.max_bytes, params.max_pixels)


def narrow_limits(one: Limits, other: Limits) -> Limits:
    """Return the lower of both limits."""
    return Limits(min(one.max_bytes, other.max_bytes), min(one.max_pixels, other.max_pixels))


@contextmanager
def open_model(model: str = versions.CHAMPION, name: str | None = None) -> Iterator[ModelFiles]:
    """Give access to a model's files: a folder, or a version that is downloaded for the time.

    Raises `UserError` if there is no such model, or if a version's files have changed.
    """
    if is_folder(model):
        yield _find_folder(Path(model))
    else:
        version = find_version(model, name)
        with versions.fetch(version) as files:
            yield ModelFiles(
                name=describe_version(version),
                folder=versions.find_artifact(files, "model"),
                sha256=version.tags[versions.SHA256],
                thresholds=_find_optional(files, "thresholds"),
                seen=_find_optional(files, "seen"),
                class_names=_read_class_names(_find_optional(files, versions.CLASS_NAMES_JSON)),
                version=version,
            )


def is_folder(model: str) -> bool:
    """Return whether a model is named by its folder."""
    return Path(model).is_dir() or "/" in model


def _find_folder(folder: Path) -> ModelFiles:
    if not folder.is_dir():
        raise UserError(
            f"{folder} is not a folder: expected one that training wrote, such as "
            "data/models/<architecture>"
        )
    thresholds = folder.parent.parent / "results" / folder.name / THRESHOLDS_JSON
    names = load_params().register_.class_names if PARAMS.exists() else {}
    return ModelFiles(str(folder), folder, folder_sha256(folder), thresholds, class_names=names)


def _find_optional(files: Path, name: str) -> Path | None:
    try:
        return versions.find_artifact(files, name)
    except FileNotFoundError:
        return None  # older versions have no such artifact


def _read_class_names(file: Path | None) -> dict[str, str]:
    return json.loads(file.read_text(encoding="utf-8")) if file else {}


def read_predictor(files: ModelFiles, limits: Limits, explain: bool = False) -> Predictor:
    """Load the predictor of an open model. Raises `UserError` if a file is refused."""
    version = files.version
    try:
        predictor = from_folder(files.folder, files.name, files.sha256, files.thresholds, limits)
        if version is not None:
            predictor = replace(predictor, facts=versions.read_tags(version))
    except UserError as error:
        if version is None:
            raise  # the message names the folder
        raise UserError(f"{files.name}: {error}") from error
    predictor = replace(predictor, class_names=files.class_names)
    if not explain:
        return predictor
    from tasks.inference import gradcam  # imports TensorFlow; a random forest does not need it

    return replace(predictor, heatmaps=gradcam.load(files.folder).heatmaps)


def describe_version(version: ModelVersion) -> str:
    """Return the name of a version in predictions and logs."""
    return f"{version.name} version {version.version}"


def find_version(model: str = versions.CHAMPION, name: str | None = None) -> ModelVersion:
    """Return the version with this number or alias. Raises `UserError` that lists the versions."""
    name = name or load_params().register_.model
    client = _open_registry()
    try:
        registered = client.get_registered_model(name)
        number = model if model.isdecimal() else str(registered.aliases.get(model))
        listed = client.search_model_versions(f"name = '{name}'")
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            where = servers.mask_secrets(mlflow.get_tracking_uri())
            raise UserError(
                f"the registry {where} does not answer: {servers.mask_secrets(str(error))}"
            ) from error
        known = sorted(model.name for model in client.search_registered_models())
        raise UserError(
            f"there is no registered model {name}; the registered models are: "
            f"{', '.join(known) or 'none'}. Choose one with --name"
        ) from error
    found = {str(version.version): version for version in listed}
    if number not in found:
        raise UserError(_describe_unknown(model, name, registered.aliases, list(found.values())))
    return found[number]


def _open_registry() -> MlflowClient:
    """Return the registry. A missing default registry is an error, and is not created."""
    uri = store.find_uri()
    if uri.startswith(store.SQLITE) and not Path(uri.removeprefix(store.SQLITE)).exists():
        raise UserError(
            f"{uri} is missing, so there is no registry here. Fill one with `make run`, set "
            f"{store.VARIABLE} to another, or name a folder: --model data/models/<architecture>"
        )
    runs.refuse_unreachable()
    store.make_paths_relative()
    mlflow.set_tracking_uri(uri)
    try:
        return MlflowClient()
    except MlflowException as error:
        raise UserError(runs.describe_refusal(uri, str(error))) from error


def _describe_unknown(
    model: str, name: str, aliases: dict[str, str], listed: list[ModelVersion]
) -> str:
    lines = [f"{name} has no {'version ' if model.isdecimal() else ''}{model}"]
    lines.append("  its versions:" if listed else "  it has no versions; `make run` registers one")
    for version in sorted(listed, key=lambda version: int(version.version)):
        own = [alias for alias, number in aliases.items() if str(number) == str(version.version)]
        facts = [version.tags.get("architecture", ""), *own, version.tags.get("gate", "")]
        lines.append(f"    {version.version}  {', '.join(fact for fact in facts if fact)}")
    if model == versions.CHAMPION and listed:
        lines.append(
            "  Choose one with --model <version>, or make one the champion: "
            'python -m flows.promote --version N --reason "…"'
        )
    for folder in (Path("data/models", model), Path("data/ensembles/models", model)):
        if folder.is_dir():
            lines.append(f"  To use the folder, give its path: --model {folder}")
    return "\n".join(lines)
