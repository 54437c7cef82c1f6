"""Images of many requests, answered by few calls of a model.

Nothing waits for a batch to fill: what has come while the model was busy is its next batch. So one image alone is
answered at once, and the more there are at a time, the cheaper each becomes.
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
    """An image before its batch."""

    predictor: Predictor
    decoded: Prepared
    answer: asyncio.Future[Answer]


class Batcher:
    """Files are decoded in a few threads, models asked in one; the event loop only hands over."""

    def __init__(self, images: int) -> None:
        self.images = images  # in one call at most
        self.decoders = ThreadPoolExecutor(THREADS, "decode")
        self.model = ThreadPoolExecutor(1, "model")
        self._waiting: deque[Waiting] = deque()
        self._arrived = asyncio.Event()

    async def decode(self, work: Callable[..., Result], *arguments: object) -> Result:
        """Do something with a picture, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self.decoders, work, *arguments)

    async def between(self, work: Callable[..., Result], *arguments: object) -> Result:
        """Do something with a model, between two batches."""
        return await asyncio.get_running_loop().run_in_executor(self.model, work, *arguments)

    async def answer(self, predictor: Predictor, content: bytes) -> Answer:
        """Answer one file."""
        return await self.ask(predictor, await self.decode(predictor.decode, content))

    async def ask(self, predictor: Predictor, decoded: Prepared) -> Answer:
        """Answer pixels, in the next batch. Cancelled, they leave the queue."""
        waiting = Waiting(predictor, decoded, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._arrived.set()
        return await waiting.answer

    async def run(self) -> None:
        """Answer what waits, until cancelled."""
        while True:
            await self._arrived.wait()
            if batch := self._take():
                await self._answer(batch)
            else:
                self._arrived.clear()

    def _take(self) -> list[Waiting]:
        """Return the next images that are still wanted, all for one predictor."""
        batch: list[Waiting] = []
        while self._waiting and len(batch) < self.images:
            if batch and self._waiting[0].predictor is not batch[0].predictor:
                break
            first = self._waiting.popleft()
            if not first.answer.done():
                batch.append(first)
        return batch

    async def _answer(self, batch: list[Waiting]) -> None:
        decoded = [waiting.decoded for waiting in batch]
        call = asyncio.ensure_future(
            self.between(lambda: list(batch[0].predictor.answers(decoded)))
        )
        await asyncio.wait(
            [call]
        )  # and not `await call`: what a model raises goes to those who asked, and stops nobody else
        for number, waiting in enumerate(batch):
            if waiting.answer.done():
                continue
            if error := call.exception():
                waiting.answer.set_exception(error)
            else:
                waiting.answer.set_result(call.result()[number])
