"""Describe the winner in a model card (after Mitchell et al. 2019, arXiv:1810.03993)."""

import importlib.metadata
import platform
from pathlib import Path

from tasks.params.architectures import Architecture
from tasks.params.report import Report
from tasks.reporting.language import _
from tasks.tracking.hashes import file_sha256, folder_sha256

PACKAGES = (
    *("tensorflow", "keras", "scikit-learn", "numpy", "pandas", "pillow", "great-expectations"),
    *("mlflow", "dvc", "prefect"),
)


def read_statements(report: Report) -> dict[str, str]:
    """Return the purpose of the model and the source of the images, or how to state them."""
    return {
        "purpose": report.purpose
        or _("Not stated. Set report.purpose in params.yaml to state the purpose."),
        "images": report.images
        or _("Source and licence are not stated. Set report.images in params.yaml to state them."),
    }


def list_weights(architectures: dict[str, Architecture], report: Report) -> list[dict[str, str]]:
    """Return one row per pretrained backbone: weights, models that use it, and licence."""
    users: dict[tuple[str, str | None], list[str]] = {}
    for name, section in architectures.items():
        backbone = section.structure.pretrained
        if backbone is not None:
            users.setdefault((backbone.backbone, backbone.weights), []).append(name)
    return [
        {
            "backbone": backbone,
            "weights": Path(weights).name if weights else _("random weights"),
            "models": ", ".join(names),
            "licence": _describe_licence(weights, report),
        }
        for (backbone, weights), names in users.items()
    ]


def list_versions() -> dict[str, str]:
    """Return the version of Python, and of each installed package that can change a result."""
    installed = {package: _find_version(package) for package in PACKAGES}
    return {"python": platform.python_version()} | {
        package: version for package, version in installed.items() if version
    }


def hash_winner(model: Path, splits_csv: Path) -> dict[str, str]:
    """Return the SHA-256 of the winner's files and of splits.csv."""
    return {"model": folder_sha256(model), "splits": file_sha256(splits_csv)}


def _find_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _describe_licence(weights: str | None, report: Report) -> str:
    if weights is None:
        return _("no licence is needed")
    if report.weights is not None:
        return _("stated by the user: {licence}").format(licence=report.weights)
    if weights == "imagenet":
        return _(
            "ImageNet weights of Keras Applications, under the licences of their authors "
            "(keras.io/api/applications)"
        )
    return _("not stated. Set report.weights in params.yaml to state it")
