"""The section `train` of `params.yaml`: how networks are trained, and which epoch is kept."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tasks.params.augmentation import Augmentation
from tasks.params.model_input import Form, View
from tasks.params.section import Count, Positive, Section


class Schedule(Section):
    """How the learning rate changes during training."""

    kind: Literal["constant", "plateau", "cosine"] = "plateau"
    """Constant, reduced when val_loss stops improving, or falling along a cosine to the minimum."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Factor by which `plateau` multiplies the learning rate."""
    patience: Count = 3
    """Epochs without a lower val_loss after which `plateau` reduces the learning rate."""
    minimum: Annotated[float, Field(ge=0)] = 0.0
    """Lowest learning rate of `plateau` and `cosine`."""


class EarlyStopping(Section):
    """When training ends before the last epoch."""

    monitor: Literal["val_loss", "val_accuracy"] = "val_loss"
    """Score that has to improve; it also decides which epoch is the best."""
    patience: Count = 5
    """Epochs without a better score after which training stops."""


class Train(Section):
    """Defaults for all architectures. An architecture may override each key in its own section."""

    seed: int = 42
    """Seed of the initial weights, of shuffling and of augmentation."""
    threads: Count = 2
    """CPU threads of one operation; another number gives another model."""
    image_size: tuple[Count, Count] = (128, 128)
    """Height and width in pixels to which images are resized; one number means a square."""
    channels: Literal[1, 3] = 3
    """Channels of the model input: 1 for grey, 3 for colour."""
    dark_border: Annotated[int, Field(ge=0, le=254)] | None = None
    """Border rows and columns no brighter than this grey value are cropped; null crops nothing."""
    detail: Count | None = None
    """Side in pixels to which an image is reduced before it is resized; null keeps all detail."""
    test_views: tuple[View, ...] = ()
    """Test-time augmentation: predictions for these views are averaged with the image's own."""
    batch_size: Count = 32
    """Images in a batch."""
    epochs: Count = 15
    """Maximum number of epochs; early stopping may end the training sooner."""
    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"] = "adam"
    """Keras optimizer."""
    learning_rate: Positive = 1e-4
    """Initial learning rate."""
    schedule: Schedule = Schedule()
    """How the learning rate changes during training."""
    early_stopping: EarlyStopping | None = EarlyStopping()
    """When training ends before the last epoch; null trains all epochs."""
    keep: Literal["best", "last"] = "best"
    """Epoch whose weights are kept: the best by early_stopping.monitor, or the last."""
    augmentation: Augmentation | None = None
    """Random changes of training images: a name, or a mapping of changes; null changes nothing."""

    @model_validator(mode="before")
    @classmethod
    def _expand_square(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("image_size"), int):
            return values | {"image_size": (values["image_size"], values["image_size"])}
        return values

    @property
    def monitor(self) -> str:
        """The score that decides which epoch is the best."""
        return self.early_stopping.monitor if self.early_stopping else "val_loss"

    @property
    def form(self) -> Form:
        """The model input."""
        return Form(self.image_size, self.channels, self.dark_border, self.detail)


def select_epoch(
    history: Sequence[Mapping[str, float]], train: Train, monitor: str | None = None
) -> int:
    """Return the index of the epoch whose weights are kept.

    With `train.keep: last` this is the last epoch. Otherwise it is the first epoch with the best
    `monitor`: by default the score that early stopping monitors, in a search the objective.
    `history` has one row per epoch. Scores are rounded to seven digits, as in `history.csv`.
    """
    if train.keep == "last":
        return len(history) - 1
    monitor = monitor or train.monitor
    scores = [float(f"{row[monitor]:.7g}") for row in history]
    return scores.index(min(scores) if monitor == "val_loss" else max(scores))
