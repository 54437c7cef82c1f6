"""Where a model looked: pictures with a heat map of Grad-CAM over them."""

import hashlib
import os
from pathlib import Path

import numpy as np
from PIL import Image

from tasks.inference.predictor import Predictor, Source, read

SIDE = 1024  # pixels of the longer side, at most
LONGEST = (
    250  # bytes of a name: a file system takes 255, and `.part` comes behind while it is written
)
QUALITY = 85  # of JPEG


def picture(predictor: Predictor, source: Source, label: str) -> np.ndarray:
    """Return what speaks for the class `label`, over the picture as the model sees it: `uint8` RGB (height, width, 3).

    The predictor must be loaded with `explain=True`. Raises `ImageError` for what cannot be decoded.
    """
    from tasks.inference.gradcam import overlay  # imports TensorFlow

    content = source if isinstance(source, bytes) else read(source, predictor.limits)
    shown = predictor.picture(content).convert("RGB")
    pixels = predictor.decode(content).pixels
    shown.thumbnail((SIDE, SIDE))
    with predictor.lock:
        heat = predictor.heatmaps(pixels[np.newaxis], [predictor.classes.index(label)])
    return overlay(np.asarray(shown), heat[0])


def write(predictor: Predictor, file: Path, label: str, target: Path) -> None:
    """Write the picture as JPEG, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    Image.fromarray(picture(predictor, file, label)).save(part, "JPEG", quality=QUALITY)
    part.replace(target)


def place(folder: Path, file: Path) -> Path:
    """Return where the picture of a file is written: below `folder` at the file's own path, as a JPEG.

    A name too long for that is cut, and ends in its hash.
    """
    inside = Path(*[part for part in file.parts if part not in (file.anchor, "..")])
    name = inside.name if inside.suffix.lower() in (".jpg", ".jpeg") else inside.name + ".jpg"
    written = os.fsencode(name)
    if len(written) > LONGEST:
        name = f"{written[: LONGEST - 40].decode(errors='ignore')}-{hashlib.sha256(written).hexdigest()[:32]}.jpg"
    return folder / inside.with_name(name)
