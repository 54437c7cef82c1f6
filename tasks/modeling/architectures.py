"""The architectures that can be built, as a table of plain data. `layers.py`, `backbones.py` and `classical.py` build them."""

import difflib
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Activation = Literal["relu", "tanh"]

# The image models of keras.applications, and the smallest side in pixels that each of them takes without its top.
BACKBONES: dict[str, int] = {
    "ConvNeXtBase": 32, "ConvNeXtLarge": 32, "ConvNeXtSmall": 32, "ConvNeXtTiny": 32, "ConvNeXtXLarge": 32,
    "DenseNet121": 32, "DenseNet169": 32, "DenseNet201": 32,
    "EfficientNetB0": 32, "EfficientNetB1": 32, "EfficientNetB2": 32, "EfficientNetB3": 32, "EfficientNetB4": 32,
    "EfficientNetB5": 32, "EfficientNetB6": 32, "EfficientNetB7": 32,
    "EfficientNetV2B0": 32, "EfficientNetV2B1": 32, "EfficientNetV2B2": 32, "EfficientNetV2B3": 32,
    "EfficientNetV2L": 32, "EfficientNetV2M": 32, "EfficientNetV2S": 32,
    "InceptionResNetV2": 75, "InceptionV3": 75, "MobileNet": 32, "MobileNetV2": 32, "MobileNetV3Large": 32,
    "MobileNetV3Small": 32, "NASNetLarge": 32, "NASNetMobile": 32,
    "ResNet50": 32, "ResNet50V2": 32, "ResNet101": 32, "ResNet101V2": 32, "ResNet152": 32, "ResNet152V2": 32,
    "VGG16": 32, "VGG19": 32, "Xception": 71,
}  # fmt: skip


def _known_backbone(name: str) -> str:
    if name not in BACKBONES:
        close = difflib.get_close_matches(name.lower(), [known.lower() for known in BACKBONES], n=1)
        hint = f"did you mean {next(known for known in BACKBONES if known.lower() == close[0])}? " if close else ""
        raise ValueError(f"expected an image model of keras.applications; {hint}known are {', '.join(BACKBONES)}")
    return name


class Structure(BaseModel):
    """A closed, frozen row of the table."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Cnn(Structure):
    """Blocks of convolution (ReLU), optional batch normalisation, 2x2 max pooling and dropout; then dense layers with dropout.

    Without filters it is a multilayer perceptron on the flattened pixels.
    """

    filters: tuple[Count, ...]
    kernel: Count = 3
    padding: Literal["same", "valid"] = "same"
    pool: tuple[bool, ...] | bool = True  # after each block, or said block by block
    batch_norm: bool = True
    # Keras's default of 0.99 averages over hundreds of steps; small sets have some forty an epoch.
    batch_norm_momentum: Annotated[float, Field(gt=0, lt=1)] = 0.9
    block_dropout: tuple[Share, ...] = ()  # after each block; none where empty
    dense: tuple[Count, ...] = (128,)
    activation: Activation = "relu"  # of the dense layers
    dropout: Share = 0.0  # after the dense layers

    @model_validator(mode="after")
    def _said_for_every_block(self) -> "Cnn":
        for name, said in (("pool", self.pool), ("block_dropout", self.block_dropout)):
            if isinstance(said, tuple) and said and len(said) != len(self.filters):
                raise ValueError(f"{name}: expected {len(self.filters)} entries, one for each of filters, received {len(said)}")
        return self


class Backbone(Structure):
    """An image model of keras.applications without its top, as it was pretrained."""

    backbone: Annotated[str, AfterValidator(_known_backbone)]
    options: dict[str, bool | int | float | str] = {}  # its own, such as alpha of MobileNet
    weights: str | None = "imagenet"  # or a file of this backbone's weights without top; null starts at random


class Dense(Structure):
    """A dense layer of a head: its activation, then batch normalisation, then dropout."""

    units: Count
    activation: Activation = "relu"
    batch_norm: bool = False
    dropout: Share = 0.0


class Head(Structure):
    """What stands between a backbone's feature map and the probabilities."""

    pooling: Literal["average", "max", "flatten"] = "average"
    dropout: Share = 0.0  # after the pooling
    dense: tuple[Dense, ...] = ()


class Phase(Structure):
    """Training goes on with more of the backbone unfrozen, from the best epoch of the phase before."""

    trainable_from: str | None  # as below
    epochs: Count
    learning_rate: Positive
    views: Count | None = None


class Transfer(Backbone):
    """A pretrained backbone with a head of its own; batch normalisation of the backbone stays as it was pretrained.

    What lies below the first trained layer is computed once for each image and view, and kept in `.cache/features`.
    """

    trainable_from: str | None = None  # the first layer of the backbone that is trained; null trains the head alone
    views: Count | None = 2  # augmented copies of each training image, used in turn; null draws anew each epoch, uncached
    precision: Literal["float32", "bfloat16"] = "float32"  # of views and trained layers; predictions are always float32
    head: Head = Head()
    phases: tuple[Phase, ...] = ()  # further unfreezing, after the head


class Classical(Structure):
    """A scikit-learn classifier on the pixels (flattened, 0 to 1), or on the pooled features of a frozen backbone."""

    classifier: Literal["random_forest", "logistic_regression", "linear_svm", "rbf_svm"]
    trees: Count = 300  # of the forest
    regularization: Positive = 1.0  # C of the others: smaller is stronger
    features: Backbone | None = None
    pooling: Literal["average", "max"] = "average"


ARCHITECTURES: dict[str, Cnn | Transfer | Classical] = {
    "plain_cnn": Cnn(filters=(32, 64, 128), padding="valid", batch_norm=False, dropout=0.5),
    "cnn_a": Cnn(filters=(32, 64, 128), dropout=0.3),
    "cnn_b": Cnn(filters=(16, 32, 64, 128), dropout=0.5),
    "cnn_c": Cnn(filters=(32, 64, 128), kernel=5, dropout=0.4),
    "photo_cnn": Cnn(filters=(16, 32, 64), pool=(True, False, False), batch_norm=False),
    "photo_cnn_dropout": Cnn(
        filters=(16, 32, 64), pool=(True, False, False), batch_norm=False, block_dropout=(0.25, 0, 0.25), dropout=0.5
    ),
    "photo_binary": Cnn(
        filters=(16, 32, 64), pool=(True, False, False), batch_norm=False, block_dropout=(0.25, 0, 0.25), dropout=0.5
    ),
    "binary_cnn": Cnn(filters=(32, 32), padding="valid", batch_norm=False, dropout=0.5),
    "mnist_cnn": Cnn(filters=(32,), padding="valid", batch_norm=False, dense=(64,)),
    "mnist_mlp": Cnn(filters=()),
    "resnet50": Transfer(
        backbone="ResNet50",
        head=Head(dense=(Dense(units=256, batch_norm=True, dropout=0.5), Dense(units=128, dropout=0.3))),
    ),
    "vgg16_finetuned": Transfer(
        backbone="VGG16",
        trainable_from="block5_conv1",
        head=Head(pooling="flatten", dropout=0.3, dense=(Dense(units=128, dropout=0.2),)),
    ),
    "inception_v3": Transfer(backbone="InceptionV3"),
    "transfer": Transfer(backbone="MobileNetV2", head=Head(dropout=0.2)),
    "random_forest": Classical(classifier="random_forest"),
    "linear_features": Classical(classifier="logistic_regression", features=Backbone(backbone="MobileNetV2")),
    "svm_features": Classical(classifier="rbf_svm", features=Backbone(backbone="MobileNetV2")),
}
