"""The registered model, as MLflow loads it from code: image bytes in, class names and probabilities out."""

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd

from tasks.imaging.decode import decode
from tasks.modeling import saved


class ImageClassifier(mlflow.pyfunc.PythonModel):
    """Decodes as training did, and names the classes in the order kept beside the model."""

    def load_context(self, context: mlflow.pyfunc.PythonModelContext) -> None:
        """Load the model's folder from the artefact `model`."""
        self.model = saved.load(Path(context.artifacts["model"]))

    def predict(
        self, context: mlflow.pyfunc.PythonModelContext, model_input: pd.DataFrame, params: dict | None = None
    ) -> pd.DataFrame:
        """Return predicted, confidence and a column p_<class> per class, one row per image.

        The column `image` holds the bytes of image files. Raises `ImageError` for one that cannot be decoded.
        """
        model = self.model
        pixels = np.stack([decode(content, model.channels, model.image_size) for content in model_input["image"]])
        probabilities = model.predict(pixels)
        top = probabilities.argmax(axis=1)
        columns = {f"p_{label}": probabilities[:, index] for index, label in enumerate(model.classes)}
        return pd.DataFrame({"predicted": [model.classes[i] for i in top], "confidence": probabilities.max(axis=1), **columns})


mlflow.models.set_model(ImageClassifier())
