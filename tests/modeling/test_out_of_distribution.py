"""Images unlike the training images are farther away than new similar ones, with any model."""

import keras
import numpy as np
import pytest

from tasks.modeling import out_of_distribution as ood

SIZE = (48, 40)


def blobs(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Bright ellipses on black, upright or lying, with some noise, and which they are."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    targets = np.arange(count) % 2
    images = []
    for target in targets:
        middle, radii = rng.uniform((21, 17), (27, 23)), rng.uniform((16, 9), (19, 12))
        inside = ((y - middle[0]) / radii[target]) ** 2 + (
            (x - middle[1]) / radii[1 - target]
        ) ** 2 < 1
        images.append(np.clip(inside * rng.uniform(120, 180) + rng.normal(0, 12, SIZE), 0, 255))
    return np.repeat(np.array(images, np.uint8)[..., None], 3, axis=-1), targets


def strange(seed: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = (10, *SIZE, 3)
    return {
        "black": np.zeros(shape, np.uint8),
        "white": np.full(shape, 255, np.uint8),
        "noise": rng.integers(0, 256, shape, dtype=np.uint8),
        "page": np.where(rng.random(shape[:3])[..., None] < 0.1, 0, 255)
        .repeat(3, axis=-1)
        .astype(np.uint8),
        "inverted": 255 - blobs(10, seed)[0],
    }


@pytest.fixture(scope="module")
def reading() -> keras.Model:
    """Build a small network with random weights that returns statistics."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((*SIZE, 3), dtype="uint8")
    x = keras.layers.MaxPooling2D()(
        keras.layers.Conv2D(8, 3, activation="relu")(keras.layers.Rescaling(1 / 255)(inputs))
    )
    outputs = keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(x))
    return ood.build_statistics_model(keras.Model(inputs, outputs))


@pytest.mark.slow
@pytest.mark.parametrize("network", [True, False])
def test_strange_images_are_farther_away_than_new_ones_of_the_kind(
    network: bool, reading: keras.Model
) -> None:
    def describe(pixels: np.ndarray) -> np.ndarray:
        return ood.describe(pixels, reading.predict_on_batch(pixels) if network else None)

    pixels, targets = blobs(200, 1)
    centroids = ood.find_centroids(describe(pixels), targets)
    new = ood.measure_distances(describe(blobs(100, 2)[0]), centroids)
    for name, images in strange().items():
        assert ood.measure_distances(describe(images), centroids).min() > new.max(), name


def test_the_nearest_class_counts() -> None:
    descriptions = np.array([[0, 0], [2, 0], [10, 0], [12, 0]], np.float32)
    centroids = ood.find_centroids(
        descriptions, np.array([3, 3, 7, 7])
    )  # a class without training images has no centre
    assert centroids.tolist() == [[1, 0], [11, 0]] and centroids.dtype == np.float32
    assert ood.measure_distances(np.array([[1, 3], [9, 0]], np.float32), centroids).tolist() == [
        3,
        2,
    ]


def test_a_picture_is_described_by_its_cells() -> None:
    """In an even image all means are equal, nothing varies, and the constant is 0.15 of white."""
    even = ood.describe(np.full((1, 8, 8, 1), 255, np.uint8), None)[0]
    assert even[:16] == pytest.approx(even[0]) and even[16:32] == pytest.approx(0)
    assert even[32] == pytest.approx(0.15 * np.linalg.norm(even[:16]), rel=1e-5)
    assert np.linalg.norm(even) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (5, 7), (4, 4)])
def test_any_size_has_a_description(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (70, *size, 3), dtype=np.uint8)
    description = ood.describe(pixels, None)
    assert description.shape == (70, 2 * 3 * min(4, size[0]) * min(4, size[1]) + 1)
    assert np.isfinite(description).all()
    assert np.array_equal(ood.describe(pixels[3:4], None)[0], description[3])


@pytest.mark.slow
def test_the_names_of_a_networks_own_layers_do_not_matter() -> None:
    """A loaded InceptionV3 has a layer `concatenate`, the name that Keras would give to ours."""
    pixels = keras.Input((8, 6, 3))
    maps = keras.layers.Concatenate(name="concatenate")(
        [pixels, keras.layers.Conv2D(2, 3, padding="same", name="std")(pixels)]
    )
    answer = keras.layers.Dense(2, name="mean")(keras.layers.Flatten()(maps))
    keras.backend.clear_session()  # the next layers are numbered as in a new process
    answering = ood.add_statistics(keras.Model(pixels, answer))
    images = np.random.default_rng(0).uniform(size=(5, 8, 6, 3)).astype(np.float32)
    probabilities, statistics = map(np.array, answering(images, training=False))
    assert probabilities.shape == (5, 2) and statistics.shape == (5, 10)
    assert statistics[:, :3] == pytest.approx(images.mean(axis=(1, 2)), abs=1e-5)
    assert statistics[:, 5:8] == pytest.approx(images.std(axis=(1, 2)), abs=1e-5)
