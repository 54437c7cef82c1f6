"""Which model a user means, and loading it: of MLflow's registry, of a folder, or pretrained on ImageNet.

    champion, challenger      the version of the registered model that has this alias
    3                         this version
    data/models/cnn_a         a folder that training wrote; its thresholds are those in data/results/cnn_a
    data/ensembles/models/x   an ensemble; its thresholds are those in data/ensembles/results/x
    imagenet:VGG16            a classifier of keras.applications with its own 1,000 classes

The registry is `MLFLOW_TRACKING_URI`, by default `mlflow.db` in the current folder. The files of a version are refused
when they are not those that were registered.
"""

from dataclasses import replace
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
SQLITE = "sqlite:///"


def load_predictor(
    model: str = versions.CHAMPION,
    name: str | None = None,
    limits: Limits | None = None,
    explain: bool = False,
) -> Predictor:
    """Return the predictor of a model, warmed up; `name` is that of the registered model, by default what params.yaml says.
    A file may cost what an image of the training may, by `validate` of params.yaml, and no more than `limits`.

    Raises `UserError`, in words for the user, where there is no such model, its files are refused, or it is
    to `explain` and cannot.
    """
    limits = narrowest(allowed(), limits or NO_LIMITS)
    if model.startswith(IMAGENET):
        from tasks.inference import imagenet

        predictor = imagenet.load(model.removeprefix(IMAGENET), limits, explain)
    elif is_folder(model):
        predictor = of_folder(Path(model), limits, explain)
    else:
        predictor = of_version(find(model, name), limits, explain)
    predictor.warm_up()
    return predictor


def allowed() -> Limits:
    """Return what a file may cost by `params.yaml`, or by default where there is none, as on a server. Raises `UserError`."""
    if not PARAMS.exists():
        return DEFAULT_LIMITS
    params = load_params().validate_
    return Limits(params.max_bytes, params.max_pixels)


def narrowest(one: Limits, other: Limits) -> Limits:
    """Return what both limits allow."""
    return Limits(min(one.max_bytes, other.max_bytes), min(one.max_pixels, other.max_pixels))


def is_folder(model: str) -> bool:
    """Say whether a model is named by its folder."""
    return Path(model).is_dir() or "/" in model


def of_folder(folder: Path, limits: Limits = DEFAULT_LIMITS, explain: bool = False) -> Predictor:
    """Load `data/models/<architecture>`."""
    if not folder.is_dir():
        raise UserError(
            f"{folder} is no folder: expected what training wrote, such as data/models/<architecture>"
        )
    thresholds = folder.parent.parent / "results" / folder.name / THRESHOLDS_JSON
    predictor = from_folder(folder, str(folder), folder_sha256(folder), thresholds, limits)
    return explaining(predictor, folder) if explain else predictor


def of_version(
    version: ModelVersion, limits: Limits = DEFAULT_LIMITS, explain: bool = False
) -> Predictor:
    """Load a registered version, if its files are those that were registered."""
    with versions.fetched(version) as files:
        predictor = of_files(version, files, limits)
        return explaining(predictor, versions.artifact(files, "model")) if explain else predictor


def of_files(version: ModelVersion, files: Path, limits: Limits = DEFAULT_LIMITS) -> Predictor:
    """Load a registered version from its files, as `registry.fetched` has them."""
    try:
        thresholds = versions.artifact(files, "thresholds")
    except FileNotFoundError:
        thresholds = None  # registered before there were any
    folder = versions.artifact(files, "model")
    try:
        sha256 = version.tags[versions.SHA256]
        predictor = from_folder(folder, named(version), sha256, thresholds, limits)
        return replace(predictor, facts=versions.read_tags(version))
    except UserError as error:
        raise UserError(f"{named(version)}: {error}") from error


def explaining(predictor: Predictor, folder: Path) -> Predictor:
    """Return a predictor that also tells where it looked. Raises `UserError` for a kind of model that cannot."""
    from tasks.inference import gradcam  # imports TensorFlow, which a forest does without

    return replace(predictor, heatmaps=gradcam.load(folder).heatmaps)


def named(version: ModelVersion) -> str:
    """Return what a registered version is called in answers and logs."""
    return f"{version.name} version {version.version}"


def find(model: str = versions.CHAMPION, name: str | None = None) -> ModelVersion:
    """Return the version that a number or an alias names. Raises `UserError` and tells which versions there are."""
    name = name or load_params().register_.model
    client = _client()
    try:
        registered = client.get_registered_model(name)
        number = model if model.isdecimal() else str(registered.aliases.get(model))
        listed = client.search_model_versions(f"name = '{name}'")
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            where = servers.masked(mlflow.get_tracking_uri())
            raise UserError(
                f"the registry {where} does not answer: {servers.masked(str(error))}"
            ) from error
        known = (
            ", ".join(sorted(model.name for model in client.search_registered_models())) or "none"
        )
        raise UserError(
            f"there is no registered model {name}; known are: {known}. Name one with --name"
        ) from error
    found = {str(version.version): version for version in listed}
    if number not in found:
        raise UserError(_unknown(model, name, registered.aliases, list(found.values())))
    return found[number]


def _client() -> MlflowClient:
    """Return the registry; a default one that is not there must not be made by asking for it."""
    uri = store.find_uri()
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).exists():
        raise UserError(
            f"{uri} is missing, so there is no registry here: make run fills one, MLFLOW_TRACKING_URI names another, and "
            "--model data/models/<architecture> takes a model's folder"
        )
    runs.refuse_silence()
    store.make_places_relative()
    mlflow.set_tracking_uri(uri)
    try:
        return MlflowClient()
    except MlflowException as error:
        raise UserError(runs.describe_refusal(uri, str(error))) from error


def _unknown(model: str, name: str, aliases: dict[str, str], listed: list[ModelVersion]) -> str:
    lines = [f"{name} has no {'version ' if model.isdecimal() else ''}{model}", "  its versions:"]
    for version in sorted(listed, key=lambda version: int(version.version)):
        called = [alias for alias, number in aliases.items() if str(number) == str(version.version)]
        facts = [version.tags.get("architecture", ""), *called, version.tags.get("gate", "")]
        lines.append(f"    {version.version}  {', '.join(fact for fact in facts if fact)}")
    if model == versions.CHAMPION and listed:
        lines.append(
            '  Say --model <version>, or make one champion: python -m flows.promote --version N --reason "…"'
        )
    for folder in (Path("data/models", model), Path("data/ensembles/models", model)):
        if folder.is_dir():
            lines.append(f"  A folder is named by its path: --model {folder}")
    return "\n".join(
        lines if listed else [*lines[:1], "  it has no versions at all: make run registers one"]
    )
