"""Links into DVC's cache. With `cache.type symlink` they are absolute, so a move makes them dangle."""

from pathlib import Path

from flows.graph import open_project

DATA = Path("data")


def mend_links() -> None:
    """Let links of a project that was moved lead to the same objects in its own cache.

    Only links that lead nowhere are touched, and only where DVC was told to make links.
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
