"""The registered model, as MLflow loads it from code: image bytes in, class names and probabilities out."""

import json
from pathlib import Path

import keras
import mlflow
import numpy as np
import pandas as pd

from tasks.imaging.decode import decode


class ImageClassifier(mlflow.pyfunc.PythonModel):
    """Decodes as training did, and names the classes in the order kept beside the model."""

    def load_context(self, context: mlflow.pyfunc.PythonModelContext) -> None:
        """Load the Keras file and its classes from the artefact `model`."""
        folder = Path(context.artifacts["model"])
        self.model = keras.saving.load_model(folder / "model.keras", safe_mode=True, compile=False)
        self.classes = json.loads((folder / "classes.json").read_text())

    def predict(
        self, context: mlflow.pyfunc.PythonModelContext, model_input: pd.DataFrame, params: dict | None = None
    ) -> pd.DataFrame:
        """Return predicted, confidence and a column p_<class> per class, one row per image.

        The column `image` holds the bytes of image files. Raises `ImageError` for one that cannot be decoded.
        """
        _, height, width, channels = self.model.input_shape
        pixels = np.stack([decode(content, channels, (height, width)) for content in model_input["image"]])
        probabilities = self.model.predict(pixels, batch_size=64, verbose=0)
        top = probabilities.argmax(axis=1)
        columns = {f"p_{label}": probabilities[:, index] for index, label in enumerate(self.classes)}
        return pd.DataFrame({"predicted": [self.classes[i] for i in top], "confidence": probabilities.max(axis=1), **columns})


mlflow.models.set_model(ImageClassifier())
