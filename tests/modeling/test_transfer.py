"""A head trains on cached features, phases unfreeze more, and a killed training ends the same."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest

from tasks.errors import UserError
from tasks.modeling import backbones, features, transfer
from tasks.modeling.checkpoints import Checkpoint
from tasks.modeling.images import Images, Sets
from tasks.modeling.training import Job, Session, Watch, fit, predict
from tasks.modeling.transfer import fit_transfer
from tasks.params.architectures import Dense, Head, Phase, Transfer
from tasks.params.augmentation import Augmentation
from tasks.params.train import Schedule, Train
from tests.support import toy_backbone

pytestmark = pytest.mark.slow

SIZE, CLASSES = (32, 32), 3
HEAD = Head(dropout=0.2, dense=(Dense(units=8, batch_norm=True, dropout=0.3),))
FROZEN = Transfer(
    backbone="MobileNet", options={"alpha": 0.5}, weights="small.weights.h5", views=2, head=HEAD
)
PHASED = FROZEN.model_copy(
    update={"phases": (Phase(trainable_from="conv_3", epochs=2, learning_rate=0.0005),)}
)
CHANGES = Augmentation(rotation=10, horizontal_flip=True, brightness=0.1)
PARAMS = Train(
    image_size=SIZE,
    channels=1,
    batch_size=8,
    epochs=3,
    learning_rate=0.01,
    augmentation=CHANGES,
    early_stopping=None,
    schedule=Schedule(kind="plateau"),
)
LAST = PARAMS.model_copy(update={"keep": "last"})


class KilledError(Exception):
    """What ends a training in these tests."""


@pytest.fixture(scope="module", autouse=True)
def toy() -> Iterator[None]:
    """MobileNet is a small backbone here."""
    with toy_backbone.in_place_of_mobilenet():
        yield


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a backbone whose batch normalisation saw noise; otherwise its activations vanish."""
    return toy_backbone.write_weights(
        tmp_path_factory.mktemp("pretrained") / "small.weights.h5", SIZE
    )


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, pretrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(pretrained, FROZEN.weights)


Trained = tuple[keras.Model, list[dict], list[int]]


@pytest.fixture(scope="module")
def frozen(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Path]:
    """`FROZEN`, trained once, and the folder of its cached features."""
    return elsewhere(FROZEN, pretrained, tmp_path_factory.mktemp("frozen"))


@pytest.fixture(scope="module")
def phased(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """`PHASED` likewise, with the weights of its last epoch."""
    return elsewhere(PHASED, pretrained, tmp_path_factory.mktemp("phased"), LAST)[0]


def elsewhere(
    structure: Transfer, pretrained: Path, root: Path, params: Train = PARAMS
) -> tuple[Trained, Path]:
    shutil.copy(pretrained, root / FROZEN.weights)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(root)
        return train(structure, params), root / features.CACHE


def sets(count: int = 36) -> Sets:
    """Noise with a bright square whose place is the class; every third image validates."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, CLASSES, count).astype(np.int32)
    pixels = rng.integers(0, 100, (count, *SIZE, 1), dtype=np.uint8)
    for image, target in zip(pixels, targets, strict=True):
        image[10 * target : 10 * target + 10, :16] = 250
    rows = np.arange(count)
    chosen = (rows, rows[rows % 3 > 0], rows[rows % 3 == 0])
    return Sets(
        *(Images(pixels, part, targets[part], np.ones(len(part), np.float32)) for part in chosen)
    )


def train(structure: Transfer, params: Train = PARAMS, kill_after: int = 0) -> Trained:
    told: list[int] = []

    def on_epoch(row: dict[str, float], epochs: int) -> None:
        assert epochs == params.epochs + sum(phase.epochs for phase in structure.phases)
        told.append(row["epoch"])
        if row["epoch"] == kill_after:
            raise KilledError

    keras.utils.set_random_seed(params.seed)
    checkpoint = Checkpoint(Path("checkpoints/a.npz"), "key")
    fitted = fit_transfer(Job(structure, params, sets(), CLASSES, checkpoint, Watch(on_epoch)))
    rows = [
        {name: value for name, value in row.items() if name != "seconds"} for row in fitted.history
    ]
    return fitted.model, rows, told


def cross_entropy(model: keras.Model) -> float:
    validation = sets().validation
    shares = predict(model, validation)
    own = shares[np.arange(len(validation.targets)), validation.targets]
    return float(np.mean(-np.log(own)))


def equal(one: keras.Model, other: keras.Model) -> bool:
    return all(
        np.array_equal(a, b) for a, b in zip(one.get_weights(), other.get_weights(), strict=True)
    )


def cached() -> list[Path]:
    return sorted(features.CACHE.glob("*.npy"))


def test_without_augmentation_cached_features_train_as_the_whole_network_does() -> None:
    structure = FROZEN.model_copy(update={"head": Head(dense=(Dense(units=8, batch_norm=True),))})
    params = PARAMS.model_copy(update={"augmentation": None, "epochs": 1})
    _, rows, _ = train(structure, params)
    keras.utils.set_random_seed(params.seed)
    whole = backbones.build_transfer(structure, (*SIZE, 1), CLASSES)
    backbones.load_weights(whole, structure, SIZE)
    backbones.freeze(whole, backbones.find_layer(whole, None))
    session = Session(params, Checkpoint(Path("whole.npz"), "key"), Watch(lambda *_: None))
    whole_rows = fit(whole, sets(), session)
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(
            [row[name] for row in rows], [row[name] for row in whole_rows], rtol=1e-4
        )


def test_a_killed_training_ends_as_one_that_was_never_killed(phased: Trained) -> None:
    """It was killed after the head was trained. The features are computed again."""
    whole, rows, _ = phased
    with pytest.raises(KilledError):
        train(PHASED, LAST, kill_after=4)
    resumed, again, told = train(PHASED, LAST)
    assert told == [5]
    assert again == rows
    assert equal(whole, resumed)


def test_phases_are_numbered_and_their_epochs_go_on(
    frozen: tuple[Trained, Path], phased: Trained
) -> None:
    """And the last epoch is kept, where params say so."""
    model, rows, _ = phased
    assert [(row["phase"], row["epoch"]) for row in rows] == [
        (1, 1),
        (1, 2),
        (1, 3),
        (2, 4),
        (2, 5),
    ]
    assert [row["learning_rate"] for row in rows[3:]] == pytest.approx([0.0005, 0.0005])
    assert "phase" not in frozen[0][1][0]
    assert rows[-1]["val_loss"] > min(row["val_loss"] for row in rows)
    np.testing.assert_allclose(cross_entropy(model), rows[-1]["val_loss"], rtol=1e-4)


def test_a_phase_that_only_gets_worse_gives_back_what_it_was_given(
    frozen: tuple[Trained, Path],
) -> None:
    wild = FROZEN.model_copy(
        update={"phases": (Phase(trainable_from="conv_4", epochs=2, learning_rate=3.0, views=1),)}
    )
    (before, rows, _), cache = frozen
    shutil.copytree(cache, features.CACHE)
    after, wild_rows, _ = train(wild)
    assert min(row["val_loss"] for row in wild_rows[3:]) > min(row["val_loss"] for row in rows)
    assert equal(before, after)


def test_what_is_frozen_stays_as_it_was_and_what_is_unfrozen_moves(phased: Trained) -> None:
    """But for batch normalisation, which stays as it was pretrained."""
    start = backbones.build_transfer(PHASED, (*SIZE, 1), CLASSES)
    backbones.load_weights(start, PHASED, SIZE)
    end, _, _ = phased
    moved = [
        layer.name
        for layer, other in zip(
            backbones.list_backbone_layers(start), backbones.list_backbone_layers(end), strict=True
        )
        if not all(
            np.array_equal(a, b)
            for a, b in zip(layer.get_weights(), other.get_weights(), strict=True)
        )
    ]
    assert moved == ["conv_3", "conv_4"]


def test_a_second_head_computes_no_features(
    frozen: tuple[Trained, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(frozen[1], features.CACHE)
    before = cached()
    assert len(before) == 1 + FROZEN.views
    monkeypatch.setattr(features, "_run", None)
    train(
        FROZEN.model_copy(update={"head": Head(dense=(Dense(units=5),))}),
        PARAMS.model_copy(update={"learning_rate": 0.02}),
    )
    assert cached() == before


def test_other_features_are_computed() -> None:
    """Other images, cuts, precisions, augmentations and weights have features of their own."""
    first, network = tiny("float32")
    every = sets().every
    for _ in range(2):
        features.compute(network, FROZEN, every)
        assert len(cached()) == 1
    half = tiny("bfloat16")[1]
    half.set_weights(network.get_weights())
    for below, images in ((network, sets().training), (first, every), (half, every)):
        features.compute(below, FROZEN, images)
    assert len(cached()) == 4
    for changes, number in (
        (CHANGES, 0),
        (CHANGES, 0),
        (CHANGES, 1),
        (CHANGES.model_copy(update={"rotation": 20.0}), 0),
    ):
        features.compute_view(network, FROZEN, every, features.View(changes, 1, number))
    assert len(cached()) == 7
    network.layers[-1].set_weights([array + 1 for array in network.layers[-1].get_weights()])
    features.compute(network, FROZEN, every)
    assert len(cached()) == 8


def tiny(precision: str) -> tuple[keras.Model, keras.Model]:
    """One convolution, and two."""
    with backbones.use_precision(precision):
        inputs = keras.Input((*SIZE, 1), dtype="uint8")
        first = keras.layers.Conv2D(2, 3)(keras.layers.Rescaling(1 / 255)(inputs))
        return keras.Model(inputs, first), keras.Model(inputs, keras.layers.Conv2D(2, 3)(first))


def test_the_saved_model_predicts_as_its_upper_part_does_on_cached_features(
    frozen: tuple[Trained, Path],
) -> None:
    (model, _, _), cache = frozen
    shutil.copytree(cache, features.CACHE)
    model.save("model.keras")
    loaded = keras.saving.load_model("model.keras", safe_mode=True, compile=False)
    below, above = transfer.cut_where_cached(loaded, FROZEN)
    every, count = sets().every, len(cached())
    plain = features.compute(below, FROZEN, every)
    assert (
        len(cached()) == count
    )  # the saved weights are those that the cached features were made with
    np.testing.assert_allclose(above.predict(plain, verbose=0), predict(loaded, every), atol=1e-5)


def test_a_phase_may_not_freeze_again() -> None:
    structure = FROZEN.model_copy(
        update={
            "weights": None,
            "trainable_from": "conv_3",
            "phases": (Phase(trainable_from="conv_4", epochs=1, learning_rate=0.1),),
        }
    )
    with pytest.raises(
        UserError, match="conv_4 is above the layers that the previous phase trained"
    ):
        train(structure)


def test_mixup_asks_for_images() -> None:
    changes = Augmentation.model_validate({"mixup": {"alpha": 0.2}})
    with pytest.raises(UserError, match="set views: null"):
        train(
            FROZEN.model_copy(update={"weights": None}),
            PARAMS.model_copy(update={"augmentation": changes}),
        )


def test_half_precision_trains_close_to_full_and_keeps_float32_weights(
    frozen: tuple[Trained, Path],
) -> None:
    half, rows, _ = train(
        FROZEN.model_copy(update={"precision": "bfloat16", "views": 1}),
        PARAMS.model_copy(update={"epochs": 1}),
    )
    assert {weight.dtype for weight in half.weights} == {"float32"}
    assert rows[0]["loss"] == pytest.approx(frozen[0][1][0]["loss"], rel=0.2)
