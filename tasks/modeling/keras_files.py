"""Keras files: read them without running code of theirs, and write equal bytes for equal models."""

import json
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

from tasks.errors import UserError

# The errors that reading a damaged or foreign model can raise, in Keras, HDF5, skops and zip.
DAMAGES = (
    *(ArithmeticError, AttributeError, EOFError, ImportError, LookupError, MemoryError),
    *(RuntimeError, TypeError, ValueError, zipfile.BadZipFile, zlib.error),
)


def load_keras(file: Path) -> Any:
    """Load a Keras model of plain layers.

    Raises `UserError` for a damaged file, and for a file that would run its own code.
    """
    import keras  # takes seconds, and a forest does not need it

    try:
        return keras.saving.load_model(file, safe_mode=True, compile=False)
    except (*DAMAGES, OSError) as error:
        raise UserError(
            f"{file} is refused: expected a Keras archive of plain layers, as training wrote it, "
            f"received {_describe(file, error)}; train it again, or restore it from a back-up"
        ) from error


def normalise_archive(path: Path) -> None:
    """Rewrite a `.keras` file without dates, and with objects numbered in order of appearance.

    So equal models are equal files.
    """
    part = path.with_suffix(".part")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(part, "w") as target:
        for name in sorted(source.namelist()):
            content = source.read(name)
            if name == "metadata.json":
                content = json.dumps(json.loads(content) | {"date_saved": ""}).encode()
            elif name == "config.json":
                content = _number_objects(content.decode()).encode()
            target.writestr(zipfile.ZipInfo(name), content)
    part.replace(path)


def _number_objects(config: str) -> str:
    """Replace the ids of shared objects, which are addresses in memory, by 1, 2, 3 and so on."""
    numbers: dict[str, int] = {}
    return re.sub(
        r'("shared_object_id": )(\d+)',
        lambda match: f"{match[1]}{numbers.setdefault(match[2], len(numbers) + 1)}",
        config,
    )


def _describe(file: Path, error: Exception) -> str:
    """Describe a file that Keras refuses, without Keras's advice to trust it."""
    if not zipfile.is_zipfile(file):
        with file.open("rb") as content:
            begin = content.read(8)
        return f"{file.stat().st_size:,} bytes that are not an archive and begin with {begin!r}"
    if "Lambda" in str(error):
        return "one with a Lambda layer, which runs code of its own"
    unknown = re.search(r"Could not locate (?:class|function) '[^']*'", str(error))
    first = (str(error).splitlines() or [repr(error)])[0][:200]
    return f"one that Keras cannot load ({unknown[0] if unknown else first})"
