"""The schemas of an architecture, and the table of architectures.

Plain data: `layers.py`, `backbones.py` and `classical.py` in `tasks/modeling/` build the models.
`read_architectures.py` reads the section `architectures` of `params.yaml`.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from tasks.errors import UserError, suggest
from tasks.params.questions import Question
from tasks.params.section import Count, Positive, Section, Share
from tasks.params.train import Train

Activation = Literal["relu", "tanh"]

# Image models of keras.applications -> the smallest side in pixels that each takes without its top.
BACKBONES: dict[str, int] = {
    "ConvNeXtBase": 32, "ConvNeXtLarge": 32, "ConvNeXtSmall": 32, "ConvNeXtTiny": 32,
    "ConvNeXtXLarge": 32,
    "DenseNet121": 32, "DenseNet169": 32, "DenseNet201": 32,
    "EfficientNetB0": 32, "EfficientNetB1": 32, "EfficientNetB2": 32, "EfficientNetB3": 32,
    "EfficientNetB4": 32, "EfficientNetB5": 32, "EfficientNetB6": 32, "EfficientNetB7": 32,
    "EfficientNetV2B0": 32, "EfficientNetV2B1": 32, "EfficientNetV2B2": 32, "EfficientNetV2B3": 32,
    "EfficientNetV2L": 32, "EfficientNetV2M": 32, "EfficientNetV2S": 32,
    "InceptionResNetV2": 75, "InceptionV3": 75,
    "MobileNet": 32, "MobileNetV2": 32, "MobileNetV3Large": 32, "MobileNetV3Small": 32,
    "NASNetLarge": 32, "NASNetMobile": 32,
    "ResNet50": 32, "ResNet50V2": 32, "ResNet101": 32, "ResNet101V2": 32, "ResNet152": 32,
    "ResNet152V2": 32,
    "VGG16": 32, "VGG19": 32, "Xception": 71,
}  # fmt: skip


def _check_backbone(name: str) -> str:
    if name not in BACKBONES:
        raise ValueError(
            f"expected an image model of keras.applications; {suggest(name, BACKBONES)}"
            f"known are {', '.join(BACKBONES)}"
        )
    return name


class Structure(Section):
    """The properties that all kinds of models share. Needs no TensorFlow.

    A new kind is a subclass here, a name in `AnyStructure`, and a module in `tasks/modeling` with
    its row in `kinds.KINDS`.
    """

    kind: ClassVar[str]
    in_epochs: ClassVar[bool] = True  # whether it is trained epoch by epoch
    # The keys of `train` that apply to this kind; None means all of them.
    train_keys: ClassVar[tuple[str, ...] | None] = None

    @property
    def pretrained(self) -> "Backbone | None":
        """Return the pretrained backbone of the model, if it has one."""
        return None

    @property
    def later_epochs(self) -> int:
        """Return the number of epochs after those of `train.epochs`."""
        return 0

    def describe(self) -> dict[str, object]:
        """Return the cells of comparison.csv that describe this structure."""
        return {}


class Cnn(Structure):
    """A convolutional network: blocks of layers, then dense layers.

    A block has a convolution with ReLU, batch normalisation, 2x2 max pooling and dropout.
    Without filters the network is a multilayer perceptron on the flattened pixels.
    """

    filters: tuple[Count, ...]
    """Filters of each convolution, block by block; an empty list makes a multilayer perceptron."""
    kernel: Count = 3
    """Height and width of each convolution kernel in pixels."""
    padding: Literal["same", "valid"] = "same"
    """Padding of the convolutions: `same` keeps the size, `valid` adds no border."""
    pool: tuple[bool, ...] | bool = True
    """Whether max pooling ends a block: a value for all blocks, or a list of values."""
    batch_norm: bool = True
    """Whether batch normalisation follows each convolution."""
    # Keras's default of 0.99 averages over hundreds of steps; small sets have some forty an epoch.
    batch_norm_momentum: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Momentum of batch normalisation's moving averages; 0.9 averages over about ten steps."""
    block_dropout: tuple[Share, ...] = ()
    """Dropout rate at the end of each block; an empty list means no dropout there."""
    dense: tuple[Count, ...] = (128,)
    """Units of each dense layer."""
    activation: Activation = "relu"
    """Activation of the dense layers."""
    dropout: Share = 0.0
    """Dropout rate after each dense layer; 0 means no dropout."""

    kind: ClassVar[str] = "cnn"

    def describe(self) -> dict[str, object]:
        """Return filters, kernel and dropout; a perceptron has no kernel."""
        return {
            "filters": " ".join(map(str, self.filters)),
            "kernel": self.kernel if self.filters else "",
            "dropout": self.dropout,
        }

    @model_validator(mode="after")
    def _check_one_for_each_block(self) -> "Cnn":
        for name, given in (("pool", self.pool), ("block_dropout", self.block_dropout)):
            if isinstance(given, tuple) and given and len(given) != len(self.filters):
                raise ValueError(
                    f"{name}: expected {len(self.filters)} entries, as many as filters has, "
                    f"received {len(given)}"
                )
        return self


class Backbone(Section):
    """A pretrained image model of keras.applications without its top."""

    backbone: Annotated[str, AfterValidator(_check_backbone)]
    """Name in keras.applications, such as MobileNetV2."""
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """Further arguments of the backbone, such as `alpha` of MobileNet."""
    weights: str | None = "imagenet"
    """`imagenet`, or a file with this backbone's weights without top; null starts at random."""


class Dense(Section):
    """A dense layer of a head: its activation, then batch normalisation, then dropout."""

    units: Count
    """Number of units."""
    activation: Activation = "relu"
    """Activation function."""
    batch_norm: bool = False
    """Whether batch normalisation follows."""
    dropout: Share = 0.0
    """Dropout rate after the layer; 0 means no dropout."""


class Head(Section):
    """The layers between a backbone's feature map and the probabilities."""

    pooling: Literal["average", "max", "flatten"] = "average"
    """How the feature map becomes a vector: global average, global maximum, or flattened."""
    dropout: Share = 0.0
    """Dropout rate after the pooling; 0 means no dropout."""
    dense: tuple[Dense, ...] = ()
    """Dense layers after the pooling."""


class Phase(Section):
    """A further phase of training with more of the backbone unfrozen.

    It starts from the best epoch of the phase before.
    """

    trainable_from: str | None
    """First layer of the backbone that is trained; null trains only the head."""
    epochs: Count
    """Maximum number of epochs of this phase."""
    learning_rate: Positive
    """Initial learning rate of this phase."""
    views: Count | None = None
    """Cached augmented copies per training image; null draws new copies each epoch, uncached."""


class Transfer(Backbone, Structure):
    """A pretrained backbone with a new head. The backbone's batch normalisation stays frozen.

    The output of the layers below the first trained layer is computed once for each image, and for
    each cached augmented copy. It is kept in `.cache/features`.
    """

    trainable_from: str | None = None
    """First layer of the backbone that is trained; null trains only the head."""
    views: Count | None = 2
    """Cached augmented copies per training image; null draws new copies each epoch, uncached."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of cached copies and trained layers; predictions are always float32."""
    head: Head = Head()
    """The layers between the backbone's feature map and the probabilities."""
    phases: tuple[Phase, ...] = ()
    """Further phases of training with more of the backbone unfrozen."""

    kind: ClassVar[str] = "transfer"

    @property
    def pretrained(self) -> Backbone:
        """Return the backbone, whose keys are part of this structure."""
        return self

    @property
    def later_epochs(self) -> int:
        """Return the number of epochs of all phases after the first."""
        return sum(phase.epochs for phase in self.phases)

    def describe(self) -> dict[str, object]:
        """Return the backbone and the dropout rates of the head."""
        rates = (self.head.dropout, *(dense.dropout for dense in self.head.dense))
        dropout = " ".join(f"{rate:g}" for rate in rates if rate)
        return {"backbone": self.backbone, "dropout": dropout}


class Classical(Structure):
    """A scikit-learn classifier.

    Its inputs are the flattened pixels from 0 to 1, or the pooled features of a frozen backbone.
    """

    classifier: Literal["random_forest", "logistic_regression", "linear_svm", "rbf_svm"]
    """Kind of classifier."""
    trees: Count = 300
    """Number of trees of a random forest."""
    regularization: Positive = 1.0
    """Parameter C of the other classifiers; a smaller value regularizes more."""
    features: Backbone | None = None
    """The frozen backbone that computes the inputs; null means that the pixels are the inputs."""
    pooling: Literal["average", "max"] = "average"
    """How the backbone's feature map becomes a vector."""

    kind: ClassVar[str] = "classical"
    in_epochs: ClassVar[bool] = False
    train_keys: ClassVar[tuple[str, ...]] = ("image_size", "channels", "dark_border", "detail")

    @property
    def pretrained(self) -> Backbone | None:
        """Return the backbone that computes the features; None for a model of the pixels."""
        return self.features

    def describe(self) -> dict[str, object]:
        """Return the backbone of the features, if there is one."""
        return {"backbone": self.features.backbone if self.features else ""}


AnyStructure = Cnn | Transfer | Classical

_PHOTO_CNN_DROPOUT = Cnn(
    filters=(16, 32, 64),
    pool=(True, False, False),
    batch_norm=False,
    block_dropout=(0.25, 0, 0.25),
    dropout=0.5,
)
ARCHITECTURES: dict[str, AnyStructure] = {
    "plain_cnn": Cnn(filters=(32, 64, 128), padding="valid", batch_norm=False, dropout=0.5),
    "cnn_a": Cnn(filters=(32, 64, 128), dropout=0.3),
    "cnn_b": Cnn(filters=(16, 32, 64, 128), dropout=0.5),
    "cnn_c": Cnn(filters=(32, 64, 128), kernel=5, dropout=0.4),
    "photo_cnn": Cnn(filters=(16, 32, 64), pool=(True, False, False), batch_norm=False),
    "photo_cnn_dropout": _PHOTO_CNN_DROPOUT,
    "photo_binary": _PHOTO_CNN_DROPOUT,
    "binary_cnn": Cnn(filters=(32, 32), padding="valid", batch_norm=False, dropout=0.5),
    "mnist_cnn": Cnn(filters=(32,), padding="valid", batch_norm=False, dense=(64,)),
    "mnist_mlp": Cnn(filters=()),
    "resnet50": Transfer(
        backbone="ResNet50",
        head=Head(
            dense=(Dense(units=256, batch_norm=True, dropout=0.5), Dense(units=128, dropout=0.3))
        ),
    ),
    "vgg16_finetuned": Transfer(
        backbone="VGG16",
        trainable_from="block5_conv1",
        head=Head(pooling="flatten", dropout=0.3, dense=(Dense(units=128, dropout=0.2),)),
    ),
    "inception_v3": Transfer(backbone="InceptionV3"),
    "transfer": Transfer(backbone="MobileNetV2", head=Head(dropout=0.2)),
    "random_forest": Classical(classifier="random_forest"),
    "linear_features": Classical(
        classifier="logistic_regression", features=Backbone(backbone="MobileNetV2")
    ),
    "svm_features": Classical(classifier="rbf_svm", features=Backbone(backbone="MobileNetV2")),
}


class Architecture(Section):
    """One architecture to train."""

    structure: AnyStructure
    """Layers of a network, or kind of a classifier."""
    question: Question = Question()
    """The question that the model answers."""
    train: Train
    """How the model is trained."""

    @property
    def weights_files(self) -> list[Path]:
        """The file of pretrained weights named in params, if it exists. Keras checks its own."""
        pretrained = self.structure.pretrained
        file = Path((pretrained and pretrained.weights) or "").expanduser()
        return [file] if file.is_file() else []


def check_size(structure: Structure, size: tuple[int, int]) -> None:
    """Raise `UserError` if images are too small for the backbone."""
    backbone = structure.pretrained
    if backbone is not None and min(size) < BACKBONES[backbone.backbone]:
        least = BACKBONES[backbone.backbone]
        raise UserError(
            f"image_size: received {list(size)}, "
            f"expected at least {least} pixels a side for {backbone.backbone}"
        )
