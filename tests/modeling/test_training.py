"""A training that was killed resumes and ends with the same bits, and the history is right."""

import logging
from pathlib import Path

import keras
import numpy as np
import pytest

from tasks.errors import UserError
from tasks.modeling.checkpoints import Checkpoint
from tasks.modeling.images import Images, Sets
from tasks.modeling.layers import build_model
from tasks.modeling.training import Session, Watch, fit, predict, use_threads
from tasks.params.architectures import Cnn
from tasks.params.augmentation import Augmentation, Elastic, Mixup
from tasks.params.train import EarlyStopping, Schedule, Train

pytestmark = pytest.mark.slow

SIZE, CHANNELS, CLASSES = (12, 10), 3, 3
STRUCTURE = Cnn(filters=(4,), dense=(), dropout=0.3)
CHANGES = Augmentation(rotation=20, width_shift=0.1, zoom=0.1, horizontal_flip=True, brightness=0.2)
BENT_AND_BLENDED = CHANGES.model_copy(update={"elastic": Elastic(), "mixup": Mixup(alpha=0.4)})
STOPPING = Train(
    seed=1,
    epochs=12,
    batch_size=8,
    learning_rate=0.02,
    schedule=Schedule(kind="plateau", patience=1),
    early_stopping=EarlyStopping(patience=3),
    augmentation=BENT_AND_BLENDED,
)
PLAIN = Train(
    seed=1,
    epochs=4,
    batch_size=8,
    learning_rate=0.02,
    schedule=Schedule(kind="cosine", minimum=0.01),
    early_stopping=None,
)


class KilledError(Exception):
    """What ends a training in these tests."""


def images(count: int, seed: int, weights: np.ndarray | None = None) -> Images:
    """Return random pixels and targets at odd rows of a larger array."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (2 * count, *SIZE, CHANNELS), dtype=np.uint8)
    targets = rng.integers(0, CLASSES, count).astype(np.int32)
    return Images(
        pixels,
        np.arange(1, 2 * count, 2),
        targets,
        np.ones(count, np.float32) if weights is None else weights,
    )


TRAINING, VALIDATION = images(30, seed=1), images(20, seed=2)


def new_model(params: Train) -> keras.Model:
    keras.utils.set_random_seed(params.seed)
    return build_model(STRUCTURE, (*SIZE, CHANNELS), CLASSES, fused=True)


def train(
    params: Train,
    checkpoint: Path,
    kill_after: int = 0,
    key: str = "key",
    training: Images = TRAINING,
):
    """Return the model, the history without its times, and the epochs that this call trained."""
    model, told = new_model(params), []

    def on_epoch(row: dict[str, float], epochs: int) -> None:
        told.append(row["epoch"])
        if row["epoch"] == kill_after:
            raise KilledError(row)

    sets = Sets(training, training, VALIDATION)
    history = fit(model, sets, Session(params, Checkpoint(checkpoint, key), Watch(on_epoch)))
    return (
        model,
        [{name: value for name, value in row.items() if name != "seconds"} for row in history],
        told,
    )


def equal_weights(one: keras.Model, other: keras.Model) -> bool:
    return all(
        np.array_equal(a, b) for a, b in zip(one.get_weights(), other.get_weights(), strict=True)
    )


Trained = tuple[keras.Model, list[dict[str, float]]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Train without interruption until early stopping."""
    model, history, _ = train(STOPPING, tmp_path_factory.mktemp("whole") / "a.npz")
    return model, history


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Train without augmentation and early stopping; only the optimizer's steps decide the rate."""
    model, history, _ = train(PLAIN, tmp_path_factory.mktemp("plain") / "a.npz")
    return model, history


def test_the_uninterrupted_training_has_a_state_to_lose(whole: Trained) -> None:
    """The rate was lowered, training stopped early, and the best model was kept."""
    model, history = whole
    losses = [row["val_loss"] for row in history]
    assert len(history) < STOPPING.epochs
    assert len({row["learning_rate"] for row in history}) > 2
    assert 1 < 1 + losses.index(min(losses)) == len(history) - STOPPING.early_stopping.patience
    assert cross_entropy(model, VALIDATION) == pytest.approx(min(losses), rel=1e-5)


def test_a_training_that_is_killed_again_and_again_ends_like_an_uninterrupted_one(
    whole: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In its midst, and at its end, from where it trains no more."""
    model, history = whole
    for end in (2, len(history)):
        with pytest.raises(KilledError):
            train(STOPPING, tmp_path / "a.npz", kill_after=end)
    with caplog.at_level(logging.INFO):
        resumed, resumed_history, told = train(STOPPING, tmp_path / "a.npz")
    assert f"resuming after epoch {len(history)}" in caplog.text
    assert told == []
    assert resumed_history == history
    assert equal_weights(resumed, model)


def test_neither_the_checkpoint_of_another_training_nor_tensorboard_changes_the_result(
    plain: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if TensorBoard's logs are asked for after a kill; a seed and an augmentation do."""
    model, history = plain
    for change in ({"augmentation": CHANGES}, {"seed": 7}):
        with pytest.raises(KilledError) as killed:
            train(
                PLAIN.model_copy(update=change),
                tmp_path / "b.npz",
                kill_after=1,
                key=f"another {change}",
            )
        assert killed.value.args[0]["loss"] != history[0]["loss"]
    with pytest.raises(KilledError):
        train(PLAIN, tmp_path / "b.npz", kill_after=2)
    monkeypatch.setenv("TENSORBOARD_DIR", str(tmp_path / "logs"))
    resumed, resumed_history, told = train(PLAIN, tmp_path / "b.npz")
    assert told == [3, 4]
    assert resumed_history == history and [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert equal_weights(resumed, model)
    assert list((tmp_path / "logs/b").rglob("events.out.tfevents.*"))


def test_the_best_epoch_is_kept_or_the_last_where_params_say_so(
    plain: Trained, tmp_path: Path
) -> None:
    """Also after a kill, and where nothing stops early."""
    model, history = plain
    losses = [row["val_loss"] for row in history]
    assert len(history) == PLAIN.epochs and losses[-1] > min(losses)
    assert cross_entropy(model, VALIDATION) == pytest.approx(min(losses), rel=1e-5)
    params = PLAIN.model_copy(update={"keep": "last"})
    with pytest.raises(KilledError):
        train(params, tmp_path / "a.npz", kill_after=3)
    last, again, _ = train(params, tmp_path / "a.npz")
    assert again == history
    assert cross_entropy(last, VALIDATION) == pytest.approx(losses[-1], rel=1e-5)


def cross_entropy(model: keras.Model, chosen: Images, weights: np.ndarray | float = 1.0) -> float:
    probabilities = predict(model, chosen)
    return float(
        np.mean(-np.log(probabilities[np.arange(len(chosen.targets)), chosen.targets]) * weights)
    )


def test_the_training_loss_is_weighted_and_the_validation_loss_is_not(tmp_path: Path) -> None:
    """At a rate of almost 0 both losses are those of the new model."""
    weights = np.linspace(0, 4, 30, dtype=np.float32)
    training = images(30, seed=1, weights=weights)
    validation = images(20, seed=2, weights=np.linspace(0, 4, 20, dtype=np.float32))
    params = Train(epochs=1, batch_size=30, optimizer="sgd", learning_rate=1e-12)
    keras.utils.set_random_seed(0)
    model = build_model(Cnn(filters=(4,), batch_norm=False, dense=(8,)), (*SIZE, CHANNELS), CLASSES)
    rows: list[dict[str, float]] = []
    watch = Watch(lambda row, epochs: rows.append(row))
    session = Session(params, Checkpoint(tmp_path / "a.npz", "key"), watch)
    (row,) = fit(model, Sets(training, training, validation), session)
    names = {"epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds"}
    assert rows == [row] and set(row) == names and row["seconds"] > 0
    assert row["loss"] == pytest.approx(cross_entropy(model, training, weights), rel=1e-4)
    assert row["val_loss"] == pytest.approx(cross_entropy(model, validation), rel=1e-4)
    right = predict(model, validation).argmax(axis=1) == validation.targets
    assert row["val_accuracy"] == pytest.approx(right.mean())


def test_the_cosine_goes_down_step_by_step_and_ends_at_its_minimum(plain: Trained) -> None:
    """An epoch has as many steps as it has batches, the last and smaller one included."""
    model, history = plain
    expected = [
        0.01 + 0.01 * (1 + np.cos(np.pi * share)) / 2 for share in (0, 1 / 4, 1 / 2, 3 / 4, 1)
    ]
    rates = [row["learning_rate"] for row in history] + [float(model.optimizer.learning_rate)]
    assert rates == pytest.approx(expected, rel=1e-5)
    assert int(model.optimizer.iterations) == 4 * 4  # 30 images


def test_a_training_that_diverges_says_what_to_do(tmp_path: Path) -> None:
    params = Train(epochs=3, batch_size=8, optimizer="sgd", learning_rate=1e30)
    with pytest.raises(
        UserError,
        match=r"epoch \d: the loss is .*diverged. Lower learning_rate \(1e\+30\) in params.yaml",
    ):
        train(params, tmp_path / "a.npz")


def test_a_small_set_can_be_learnt_by_heart(tmp_path: Path) -> None:
    structure = Cnn(filters=(8,), dense=())
    params = Train(
        epochs=8,
        batch_size=3,
        learning_rate=0.01,
        schedule=Schedule(kind="constant"),
        early_stopping=None,
    )
    keras.utils.set_random_seed(0)
    model = build_model(structure, (*SIZE, CHANNELS), CLASSES, fused=True)
    session = Session(params, Checkpoint(tmp_path / "a.npz", "key"), Watch(lambda *_: None))
    fit(model, Sets(TRAINING, TRAINING, TRAINING), session)
    assert (predict(model, TRAINING).argmax(axis=1) == TRAINING.targets).all()


def test_predictions_come_in_the_order_of_the_rows() -> None:
    model = new_model(STOPPING)
    many = images(150, seed=3)  # more than one batch
    probabilities = predict(model, many)
    assert probabilities.shape == (150, CLASSES)
    chosen = Images(
        many.pixels, many.rows[[140, 2]], many.targets[[140, 2]], many.weights[[140, 2]]
    )
    assert np.allclose(predict(model, chosen), probabilities[[140, 2]], atol=1e-6)
    assert np.allclose(model.predict(many.pixels[many.rows], verbose=0), probabilities, atol=1e-6)


def test_threads_may_be_set_again() -> None:
    use_threads(2)
    use_threads(2)
