"""The registered model, as MLflow loads it from code: image bytes in, class names and probabilities out."""

import base64
import binascii
from pathlib import Path

import mlflow
import pandas as pd

from tasks.errors import UserError
from tasks.inference import predictor
from tasks.registry.versions import SHA256
from tasks.tracking.hashes import folder_sha256


class ImageClassifier(mlflow.pyfunc.PythonModel):
    """Answers as the command line does, by the same code."""

    def load_context(self, context: mlflow.pyfunc.PythonModelContext) -> None:
        """Load the artefacts `model` and `thresholds`. Raises `UserError` where the model is not the one that was logged."""
        folder, thresholds = Path(context.artifacts["model"]), context.artifacts.get("thresholds")
        received, expected = folder_sha256(folder), context.model_config[SHA256]
        if received != expected:
            raise UserError(
                f"{folder} is not what was registered: expected files of the SHA-256 {expected}, received {received}. "
                "Bring them back from a back-up, or take another version"
            )
        self.predictor = predictor.from_folder(
            folder, folder.name, received, thresholds and Path(thresholds)
        )
        self.predictor.warm_up()

    def predict(
        self,
        context: mlflow.pyfunc.PythonModelContext,
        model_input: pd.DataFrame,
        params: dict | None = None,
    ) -> pd.DataFrame:
        """Return one row per image: predicted, confidence, abstained, unfamiliar, distance, p_<class> of every class, error.

        The column `image` holds the bytes of image files, also in base64. One that cannot be decoded has an `error` and
        nothing else, so that it does not cost the others their answers.
        """
        answers = self.predictor.predict(map(unpacked, model_input["image"]))
        return pd.DataFrame(
            [self.predictor.record(answer) for answer in answers],
            columns=self.predictor.columns,
            dtype=object,
        )


def unpacked(content: bytes) -> bytes:
    """Return the bytes of a file: MLflow's server undoes base64 in `dataframe_records`, but not in `inputs`."""
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error:
        return content  # no image is made of the letters of base64 alone


mlflow.models.set_model(ImageClassifier())
