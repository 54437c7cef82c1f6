"""The architectures that can be built, as a table of plain data. `layers.py` turns a row into a Keras model."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]


class Cnn(BaseModel):
    """Blocks of convolution (ReLU), optional batch normalisation and 2x2 max pooling; then dense layers with dropout."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    filters: Annotated[tuple[Count, ...], Field(min_length=1)]
    kernel: Count = 3
    padding: Literal["same", "valid"] = "same"
    batch_norm: bool = True
    # Keras's default of 0.99 averages over hundreds of steps; small sets have some forty an epoch.
    batch_norm_momentum: Annotated[float, Field(gt=0, lt=1)] = 0.9
    dense: tuple[Count, ...] = (128,)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


ARCHITECTURES: dict[str, Cnn] = {
    "plain_cnn": Cnn(filters=(32, 64, 128), padding="valid", batch_norm=False, dropout=0.5),
    "cnn_a": Cnn(filters=(32, 64, 128), dropout=0.3),
    "cnn_b": Cnn(filters=(16, 32, 64, 128), dropout=0.5),
    "cnn_c": Cnn(filters=(32, 64, 128), kernel=5, dropout=0.4),
}
