"""The registered model as MLflow loads it from code: image bytes in, predictions out."""

import base64
import binascii
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from tasks.errors import UserError
from tasks.inference import predictor
from tasks.registry.versions import SHA256
from tasks.tracking.hashes import folder_sha256


class ImageClassifier(mlflow.pyfunc.PythonModel):
    """Predict images with the same code as the command line."""

    def load_context(self, context: mlflow.pyfunc.PythonModelContext) -> None:
        """Load the artifacts `model` and `thresholds`.

        Raises `UserError` if the model's files have changed since it was registered.
        """
        folder, thresholds = Path(context.artifacts["model"]), context.artifacts.get("thresholds")
        received, expected = folder_sha256(folder), context.model_config[SHA256]
        if received != expected:
            raise UserError(
                f"the files in {folder} have changed since the model was registered: expected the "
                f"SHA-256 {expected}, received {received}. Restore them from a back-up, or use "
                "another version"
            )
        self.predictor = predictor.from_folder(
            folder, folder.name, received, Path(thresholds) if thresholds else None
        )
        self.predictor.warm_up()

    def predict(
        self,
        context: mlflow.pyfunc.PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Return one row per image: the prediction, p_<class> of every class, and the error.

        The column `image` holds the bytes of image files, or their base64. A file that cannot be
        decoded has a row with an `error` only; the other files are still predicted.
        """
        answers = self.predictor.predict(map(decode_base64, model_input["image"]))
        return pd.DataFrame(
            [self.predictor.record(answer) for answer in answers],
            columns=self.predictor.columns,
            dtype=object,
        )


def decode_base64(content: bytes) -> bytes:
    """Return the bytes of a file that may be in base64.

    MLflow's server decodes base64 in `dataframe_records`, but not in `inputs`.
    """
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error:
        return content  # an image file always has bytes that base64 does not use


mlflow.models.set_model(ImageClassifier())
