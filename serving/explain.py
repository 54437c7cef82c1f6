"""Draw where a model looked: an image with a Grad-CAM heat map over it."""

import hashlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.inference.predictor import Predictor, read

SIDE = 1024  # pixels of the longer side, at most
LONGEST = 250  # bytes of a file name: file systems accept 255, and `.part` is appended for a while
QUALITY = 85  # JPEG quality


def draw(predictor: Predictor, content: bytes, label: str) -> NDArray[np.uint8]:
    """Draw the evidence for the class `label`. Returns RGB (height, width, 3).

    The predictor must be loaded with `explain=True`. Raises `ImageError` if the file cannot be
    decoded.
    """
    pixels = predictor.decode(content).pixels
    assert pixels is not None, "expected an image that was predicted"
    assert predictor.heatmaps is not None, "expected a predictor loaded with explain=True"
    with predictor.lock:
        heat = predictor.heatmaps(pixels[np.newaxis], [predictor.classes.index(label)])[0]
    return overlay_heat(predictor, content, heat, SIDE)


def overlay_heat(
    predictor: Predictor, content: bytes, heat: NDArray[np.float32], side: int
) -> NDArray[np.uint8]:
    """Draw a heat map (height, width; 0 to 1) over the image as the model sees it."""
    from tasks.inference.gradcam import overlay  # imports TensorFlow

    shown = predictor.picture(content).convert("RGB")
    shown.thumbnail((side, side))
    return overlay(np.asarray(shown), heat)


def write(predictor: Predictor, file: Path, label: str, target: Path) -> None:
    """Draw the evidence for a class in a file, and write it as a whole JPEG or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    drawn = draw(predictor, read(file, predictor.limits), label)
    Image.fromarray(drawn).save(part, "JPEG", quality=QUALITY)
    part.replace(target)


def find_target(folder: Path, file: Path) -> Path:
    """Return the path of a file's heat map: the file's own path below `folder`, as a JPEG.

    A name that is too long is cut, and ends in its hash.
    """
    inside = Path(*[part for part in file.parts if part not in (file.anchor, "..")])
    name = inside.name if inside.suffix.lower() in (".jpg", ".jpeg") else inside.name + ".jpg"
    encoded = os.fsencode(name)
    if len(encoded) > LONGEST:
        start = encoded[: LONGEST - 40].decode(errors="ignore")
        name = f"{start}-{hashlib.sha256(encoded).hexdigest()[:32]}.jpg"
    return folder / inside.with_name(name)
