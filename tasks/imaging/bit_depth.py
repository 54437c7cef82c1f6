"""The bit depth of a set of images: `validate` finds it, and each model keeps it.

A file of more than 8 bits a value often does not say how many of them it uses. `data/decoding.json`
has one answer for the whole set.
"""

import json
from pathlib import Path

from tasks.errors import UserError


def write_bit_depth(bits: int | None, file: Path) -> None:
    """Write the bit depth; None says that no file has more than 8 bits a value."""
    file.write_text(json.dumps({"bits": bits}, indent=2) + "\n")


def read_bit_depth(file: Path) -> int | None:
    """Read the bit depth. Raises `UserError` if the file is missing or damaged."""
    try:
        bits = json.loads(file.read_text())["bits"]
        return None if bits is None else int(bits)
    except FileNotFoundError:
        raise UserError(f"{file} is missing: `dvc repro validate` writes it") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file}: expected bits, received {error!r}; `dvc repro validate` writes it again"
        ) from error
