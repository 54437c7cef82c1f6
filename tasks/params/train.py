"""The section `train` of `params.yaml`: how networks are trained, and which epoch's weights are kept."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tasks.params.augmentation import Augmentation
from tasks.params.model_input import Form, View
from tasks.params.section import Count, Positive, Section


class Schedule(Section):
    kind: Literal["constant", "plateau", "cosine"] = "plateau"
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5  # plateau: the rate is multiplied by it
    patience: Count = 3  # plateau: after so many epochs without a better val_loss
    minimum: Annotated[float, Field(ge=0)] = 0.0  # plateau and cosine: the lowest rate


class EarlyStopping(Section):
    monitor: Literal["val_loss", "val_accuracy"] = "val_loss"
    patience: Count = 5


class Train(Section):
    """Defaults of every architecture; each key may be given again in an architecture's own section."""

    seed: int = 42
    threads: Count = 2  # of one operation: other numbers give other models
    image_size: tuple[Count, Count] = (128, 128)  # height, width
    channels: Literal[1, 3] = 3
    dark_border: Annotated[int, Field(ge=0, le=254)] | None = (
        None  # grey value: what is darker around a picture is cut off
    )
    detail: Count | None = (
        None  # pixels a side that a picture is reduced to before it is stretched to image_size
    )
    test_views: tuple[View, ...] = ()  # answers are the mean over an image and these views of it
    batch_size: Count = 32
    epochs: Count = 15
    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"] = "adam"
    learning_rate: Positive = 1e-4
    schedule: Schedule = Schedule()
    early_stopping: EarlyStopping | None = EarlyStopping()
    keep: Literal["best", "last"] = (
        "best"  # which epoch's weights: the best of what early stopping watches, or the last one's
    )
    augmentation: Augmentation | None = None

    @model_validator(mode="before")
    @classmethod
    def _square(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("image_size"), int):
            return values | {"image_size": (values["image_size"], values["image_size"])}
        return values

    @property
    def monitor(self) -> str:
        """What decides which epoch is the best: what early stopping watches."""
        return self.early_stopping.monitor if self.early_stopping else "val_loss"

    @property
    def form(self) -> Form:
        """What a model takes of a picture."""
        return Form(self.image_size, self.channels, self.dark_border, self.detail)


def select_epoch(
    history: Sequence[Mapping[str, float]], train: Train, monitor: str | None = None
) -> int:
    """Return the index of the epoch whose weights are kept: the last, or the first of the best `monitor`, as `train.keep` says.

    `history` has one row per epoch; its scores count to the seven digits that `history.csv` has. `monitor` is by default what
    early stopping watches; a search names its objective.
    """
    if train.keep == "last":
        return len(history) - 1
    monitor = monitor or train.monitor
    scores = [float(f"{row[monitor]:.7g}") for row in history]
    return scores.index(min(scores) if monitor == "val_loss" else max(scores))
