"""Where the address of a Prefect server is configured. Needs only Python, not Prefect."""

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Address:
    """The address of a Prefect server, where it is set, and the command that unsets it."""

    url: str
    where: str
    undo: str


def find_home() -> Path:
    """Return the folder in which Prefect keeps its profiles and records."""
    return Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()


def find_address() -> Address | None:
    """Return the address set in the environment, else the one in Prefect's active profile."""
    if url := os.environ.get("PREFECT_API_URL"):
        return Address(url, "environment", "`unset PREFECT_API_URL`")
    profiles = os.environ.get("PREFECT_PROFILES_PATH") or find_home() / "profiles.toml"
    file = Path(profiles).expanduser()
    if not file.exists():
        return None
    settings = tomllib.loads(file.read_text(encoding="utf-8"))
    name = os.environ.get("PREFECT_PROFILE") or settings.get("active", "")
    url = settings.get("profiles", {}).get(name, {}).get("PREFECT_API_URL")
    undo = "`prefect config unset PREFECT_API_URL --yes`"
    return Address(url, f"profile {name} of Prefect", undo) if url else None
