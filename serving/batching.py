"""Predict the images of many requests with few calls of a model.

Images never wait for a batch to fill. The images that arrive while the model is busy are its next
batch. So a single image is predicted at once, and under load each image costs less.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from tasks.inference.predictor import THREADS, Answer, Predictor, Prepared

Result = TypeVar("Result")


@dataclass(frozen=True)
class Waiting:
    """An image that waits for its batch."""

    predictor: Predictor
    decoded: Prepared
    answer: asyncio.Future[Answer]


class Batcher:
    """Decode files in a few threads, and call models in one thread."""

    def __init__(self, images: int) -> None:
        self.images = images  # in one call of the model at most
        self.decoders = ThreadPoolExecutor(THREADS, "decode")
        self.model = ThreadPoolExecutor(1, "model")
        self._waiting: deque[Waiting] = deque()
        self._arrived = asyncio.Event()

    async def run_in_decoder(self, work: Callable[..., Result], *arguments: object) -> Result:
        """Run work on a file, in a thread for decoding."""
        return await asyncio.get_running_loop().run_in_executor(self.decoders, work, *arguments)

    async def run_on_model(self, work: Callable[..., Result], *arguments: object) -> Result:
        """Run work on a model, between two batches."""
        return await asyncio.get_running_loop().run_in_executor(self.model, work, *arguments)

    async def predict(self, predictor: Predictor, content: bytes) -> Answer:
        """Predict one file."""
        decoded = await self.run_in_decoder(predictor.decode, content)
        return await self.predict_decoded(predictor, decoded)

    async def predict_decoded(self, predictor: Predictor, decoded: Prepared) -> Answer:
        """Predict a decoded image in the next batch. A cancelled call leaves the queue."""
        waiting = Waiting(predictor, decoded, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._arrived.set()
        return await waiting.answer

    async def run(self) -> None:
        """Predict waiting images until cancelled."""
        while True:
            await self._arrived.wait()
            if batch := self._take():
                await self._predict(batch)
            else:
                self._arrived.clear()

    def _take(self) -> list[Waiting]:
        """Return the next batch: images for one predictor whose requests were not cancelled."""
        batch: list[Waiting] = []
        while self._waiting and len(batch) < self.images:
            if batch and self._waiting[0].predictor is not batch[0].predictor:
                break
            first = self._waiting.popleft()
            if not first.answer.done():
                batch.append(first)
        return batch

    async def _predict(self, batch: list[Waiting]) -> None:
        decoded = [waiting.decoded for waiting in batch]
        call = asyncio.ensure_future(
            self.run_on_model(lambda: list(batch[0].predictor.answers(decoded)))
        )
        # Not `await call`: the model's error belongs to these requests, and must not end the loop.
        await asyncio.wait([call])
        for number, waiting in enumerate(batch):
            if waiting.answer.done():
                continue
            if error := call.exception():
                waiting.answer.set_exception(error)
            else:
                waiting.answer.set_result(call.result()[number])
