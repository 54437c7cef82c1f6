"""The model card: what the winner is, was made of and is good for (after Mitchell et al. 2019, arXiv:1810.03993)."""

import importlib.metadata
import platform
from collections.abc import Iterable
from pathlib import Path

from tasks.params.architectures import Architecture
from tasks.params.report import Report
from tasks.tracking.hashes import file_sha256, folder_sha256

PACKAGES = (
    "tensorflow",
    "keras",
    "scikit-learn",
    "numpy",
    "pandas",
    "pillow",
    "great-expectations",
    "mlflow",
    "dvc",
    "prefect",
)


def statements(report: Report) -> dict[str, str]:
    """Return what the user says of purpose and images, or that nothing is said."""
    return {
        "purpose": report.purpose
        or "Not stated: report.purpose in params.yaml is the place for it.",
        "images": report.images
        or "Source and licence are not stated: report.images in params.yaml is the place for them.",
    }


def weights_of(architectures: dict[str, Architecture], report: Report) -> list[dict[str, str]]:
    """Return of each pretrained backbone which weights it began with, who uses them, and what is known of their licence."""
    users: dict[tuple[str, str | None], list[str]] = {}
    for name, section in architectures.items():
        backbone = section.structure.pretrained
        if backbone is not None:
            users.setdefault((backbone.backbone, backbone.weights), []).append(name)
    return [
        {
            "backbone": backbone,
            "weights": Path(weights).name if weights else "a random start",
            "models": ", ".join(names),
            "licence": _licence(weights, report),
        }
        for (backbone, weights), names in users.items()
    ]


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a result; of those that are installed."""
    installed = {package: _version(package) for package in packages}
    return {"python": platform.python_version()} | {
        package: version for package, version in installed.items() if version
    }


def hashes(model: Path, splits_csv: Path) -> dict[str, str]:
    """Return the SHA-256 of what the winner is and was made of."""
    return {"model": folder_sha256(model), "splits": file_sha256(splits_csv)}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _licence(weights: str | None, report: Report) -> str:
    if weights is None:
        return "none is needed"
    if report.weights is not None:
        return f"as the user states it: {report.weights}"
    if weights == "imagenet":
        return "ImageNet weights of Keras Applications: those of the original authors, see keras.io/api/applications"
    return "not stated: report.weights in params.yaml is the place for it"
