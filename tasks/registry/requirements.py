"""The packages that a registered version needs."""

import importlib.metadata

from tasks.errors import UserError

PACKAGES = [
    "joblib",
    "keras",
    "mlflow",
    "numpy",
    "pandas",
    "pillow",
    "pydantic",
    "ruamel.yaml",
    "scikit-learn",
    "scipy",
    "skops",
    "tensorflow",
    "threadpoolctl",
]
OPTIONAL = ("pillow-heif", "pydicom")  # a version requires them if they are installed here


def requirements() -> list[str]:
    """Return each package with its installed version. Raises `UserError` if any is missing."""
    packages = [*PACKAGES, *filter(is_installed, OPTIONAL)]
    missing = [package for package in packages if not is_installed(package)]
    if missing:
        raise UserError(
            f"a registered model needs packages that are not installed: {', '.join(missing)}. "
            "Install them from requirements.txt"
        )
    return [f"{package}=={importlib.metadata.version(package)}" for package in packages]


def is_installed(package: str) -> bool:
    """Return whether a package is installed, without importing it."""
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
