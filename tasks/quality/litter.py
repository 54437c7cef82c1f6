"""What operating systems, archives and tools leave among the images: never an image, never a class."""

LITTER = frozenset(
    (
        "__macosx",  # archives that macOS makes
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


def is_litter(name: str) -> bool:
    """Say whether a file or folder of this name is hidden or litter: with a folder goes all that is in it."""
    return name.startswith(".") or name.casefold() in LITTER
