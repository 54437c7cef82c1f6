"""Repair links into DVC's cache after a project was moved.

With `cache.type symlink` the links are absolute, so they dangle after a move.
"""

from pathlib import Path

from flows.graph import open_project

DATA = Path("data")


def mend_links() -> None:
    """Point dangling links of `data` to the same objects in this project's cache.

    Nothing happens unless DVC is configured to make links.
    """
    with open_project() as project:
        if "symlink" not in project.config["cache"].get("type", []):
            return
        cache = Path(project.cache.local.path)
    for link in [path for path in DATA.rglob("*") if path.is_symlink() and not path.exists()]:
        own = cache.joinpath(*link.readlink().parts[-2:])  # DVC names an object by folder and file
        if own.is_file():
            link.unlink()
            link.symlink_to(own)
