"""How the files of a set become pixels, found once by `validate` and saved with each model: `data/decoding.json`."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tasks.errors import UserError


@dataclass(frozen=True)
class Decoding:
    """What the pixels hang on: the bits of grey values whose files do not say; None where no file has more than 8."""

    bits: int | None = None


def write(decoding: Decoding, file: Path) -> None:
    """Write what `read` reads."""
    file.write_text(json.dumps(asdict(decoding), indent=2) + "\n")


def read(file: Path) -> Decoding:
    """Read what `validate` found. Raises `UserError` where the file is missing or damaged."""
    try:
        content = json.loads(file.read_text())
        return Decoding(None if content["bits"] is None else int(content["bits"]))
    except FileNotFoundError:
        raise UserError(f"{file} is missing: `dvc repro validate` writes it") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file}: expected bits, received {error!r}; `dvc repro validate` writes it again"
        ) from error
