"""Files that operating systems, archives and tools leave among images: never images or classes."""

JUNK = frozenset(
    (
        "__macosx",  # from archives that macOS makes
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "$recycle.bin",
        "system volume information",
        "@eadir",  # thumbnails of a network storage
        "#recycle",
        "lost+found",
        "__pycache__",
    )
)


def is_junk(name: str) -> bool:
    """Say whether a file of this name, or a folder with all its content, is hidden or junk."""
    return name.startswith(".") or name.casefold() in JUNK
