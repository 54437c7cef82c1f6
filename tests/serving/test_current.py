"""A server follows the champion and loses no answer; a refused version changes nothing."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import keras
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from PIL import Image

from serving import current
from serving.current import Current, open_current
from serving.settings import Settings
from tasks.errors import UserError
from tasks.modeling import saved
from tasks.params.model_input import Form
from tasks.registry import versions
from tasks.tracking import runs
from tests.support import toy_registry, toy_server
from tests.support.pipeline import enter
from tests.support.toy_server import picture

pytestmark = pytest.mark.slow

NAME, CLASSES, SIZE = "small", ["left", "right"], (12, 12)


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowClient]:
    """Return a registry in a folder of its own; version 1 predicts left, version 2 right."""
    root = tmp_path_factory.mktemp("current")
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(root, monkeypatch)
        runs.open_store()
        for label in CLASSES:
            register(label)
        yield MlflowClient()


@pytest.fixture
def client(registered: MlflowClient) -> MlflowClient:
    """Return the registry with version 1 as champion."""
    registered.set_registered_model_alias(NAME, versions.CHAMPION, "1")
    return registered


def register(label: str) -> ModelVersion:
    """Register a network that predicts `label` for every image."""
    folder = Path("data/models") / label
    inputs = keras.Input((*SIZE, 1), dtype="uint8")
    maps = keras.layers.Conv2D(2, 3, activation="relu")(keras.layers.Rescaling(1 / 255)(inputs))
    answer = keras.layers.Dense(2, activation="softmax")
    model = keras.Model(inputs, answer(keras.layers.GlobalAveragePooling2D()(maps)))
    answer.set_weights(
        [np.zeros((2, 2), np.float32), np.array([3, 0] if label == "left" else [0, 3], np.float32)]
    )
    saved.describe(folder, CLASSES, Form(SIZE, 1))
    saved.save(model, None, folder)
    saved.complete(folder, 1.0, np.zeros((1, 4 + 2 * 16 + 1), np.float32))
    return toy_registry.register_folder(folder, NAME)


def follow(**settings: float) -> tuple[Settings, Current]:
    chosen = Settings(**settings)
    return chosen, open_current("champion", NAME, chosen.limits, chosen.poll_seconds)


def test_when_the_alias_moves_under_load_no_answer_is_lost_or_mixed(
    client: MlflowClient,
) -> None:
    chosen, served = follow(poll_seconds=0.1)
    answers, done = [], threading.Event()
    with toy_server.running(chosen, served) as (_, port), ThreadPoolExecutor(4) as threads:

        def ask() -> None:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as connection:
                while not done.is_set():
                    files = [
                        ("files", (f"{number}.png", picture(80 * number), "image/png"))
                        for number in range(3)
                    ]
                    answers.append(connection.post("/predict", files=files))

        asking = [threads.submit(ask) for _ in range(4)]
        try:
            for version in ("2", "1"):
                client.set_registered_model_alias(NAME, versions.CHAMPION, version)
                wait_for(
                    lambda version=version: (
                        served.model.predictor.name == f"{NAME} version {version}"
                    )
                )
                seen = len(answers)
                wait_for(lambda seen=seen: len(answers) > seen + 20)
        finally:
            done.set()
        for one in asking:
            one.result()
    assert {answer.status_code for answer in answers} == {200}
    said = [answer.json() for answer in answers]
    assert {
        (one["model"], *(answer["predicted"] for answer in one["answers"])) for one in said
    } == {
        (f"{NAME} version 1", "left", "left", "left"),
        (f"{NAME} version 2", "right", "right", "right"),
    }


def test_a_changed_version_is_reported_and_not_used(
    client: MlflowClient, caplog: pytest.LogCaptureFixture
) -> None:
    chosen, served = follow(poll_seconds=0.05)
    classes = toy_registry.files(client.get_model_version(NAME, "2")) / "classes.json"
    before = classes.read_text()
    classes.write_text(json.dumps(["right", "left"]))
    with (
        toy_server.running(chosen, served) as (_, port),
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as connection,
    ):
        client.set_registered_model_alias(NAME, versions.CHAMPION, "2")
        wait_for(lambda: served.problem)
        time.sleep(0.3)
        said = connection.get("/model").json()
        assert (
            said["model"] == "small version 1"
            and "the files of version 2 of small have changed" in said["problem"]
        )
        assert connection.get("/ready").status_code == 200
        answered = connection.post("/predict", files={"files": ("a", picture(1))}).json()
        assert (
            answered["model"] == "small version 1" and answered["answers"][0]["predicted"] == "left"
        )
        assert caplog.text.count("small version 1 is kept and goes on answering") == 1
        client.set_registered_model_alias(NAME, versions.CHAMPION, "1")
        wait_for(lambda: connection.get("/model").json()["problem"] is None)
    classes.write_text(before)


def test_a_missing_registry_is_reported_until_it_is_back(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a thread that checks the registry, `get` checks it."""
    _, served = follow(poll_seconds=1e-9)
    with monkeypatch.context() as gone:
        gone.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere/mlflow.db")
        assert (
            served.get().predictor.name == "small version 1"
            and "elsewhere/mlflow.db is missing" in served.problem
        )
    client.set_registered_model_alias(NAME, versions.CHAMPION, "2")
    assert served.get().predictor.name == "small version 2" and served.problem is None


def test_a_bug_of_ours_is_logged_and_reaches_no_client(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _, served = follow(poll_seconds=1e-9)

    def fail(*_: object) -> None:
        raise KeyError("odd")

    monkeypatch.setattr(current, "load_model", fail)
    client.set_registered_model_alias(NAME, versions.CHAMPION, "2")
    assert served.get().predictor.name == "small version 1" and served.problem == "KeyError('odd')"
    assert "Traceback" in caplog.text


def test_a_refused_version_is_not_downloaded_at_each_check(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, served = follow()
    fetched = []

    def fail(wanted: str, *rest: object) -> None:
        fetched.append(wanted)
        raise UserError("too large")

    monkeypatch.setattr(current, "load_model", fail)
    client.set_registered_model_alias(NAME, versions.CHAMPION, "2")
    for _ in range(3):
        served.refresh()
    assert fetched == ["2"] and served.problem == "too large"
    monkeypatch.setattr(current, "RETRY", -1.0)
    served._refused = "", 0.0
    served.refresh()
    served.refresh()
    assert fetched == ["2", "2", "2"]


def test_a_heat_map_is_drawn_for_the_class_of_the_request(client: MlflowClient) -> None:
    chosen, served = follow()
    with (
        toy_server.running(chosen, served) as (_, port),
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as connection,
    ):
        for query, label in (("", "left"), ("?class=right", "right")):
            response = connection.post(
                f"/explain{query}", files={"file": ("a", picture(99, "JPEG", 50))}
            )
            assert response.status_code == 200 and response.headers["content-type"] == "image/png"
            assert (response.headers["x-class"], response.headers["x-model"]) == (
                label,
                "small%20version%201",
            )
            Path("picture.png").write_bytes(response.content)
            with Image.open("picture.png") as drawn:
                assert drawn.size == (50, 50) and drawn.mode == "RGB"


def test_a_server_of_a_folder_keeps_its_model(client: MlflowClient) -> None:
    shutil.copytree("data/models/right", "data/models/other")
    chosen = Settings(model="data/models/other")
    served = open_current(chosen.model, None, chosen.limits, chosen.poll_seconds)
    assert (
        not served.model.is_registered
        and served.get().predictor.predict([picture(1)])[0].predicted == "right"
    )
    shutil.rmtree("data/models/other")
    assert served.get().predictor.name == "data/models/other"


def wait_for(truth: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not truth():
        assert time.monotonic() < end
        time.sleep(0.01)
