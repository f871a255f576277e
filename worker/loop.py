"""The worker's loop: one denoising step after the other, and between two of them whatever else there is to be done.

It owns the engine and the models, and runs on the main thread. The desk (`worker/desk.py`) brings jobs and takes what
becomes of them; the finisher (`worker/finishing.py`) makes files of latents.
"""

import logging
import queue
import threading
import time
from collections.abc import Sequence

from worker import tasks
from worker.desk import Admit, Desk, Held, Order
from worker.engine import Denoised, Engine, Event, Progress
from worker.finishing import Finished, Finisher
from worker.generate import to_generation
from worker.previews import Previews
from worker.resident import ResidentModels
from worker.resuming import Resuming
from worker.tasks import Artifacts, Broken, Made

logger = logging.getLogger(__name__)

_IDLE_SECONDS = 0.05
# While a file is being made, whose end nothing tells but a look.
_FINISHING_SECONDS = 0.005
# In the mean of the seconds that finishing takes.
_WEIGHT_OF_LAST = 0.2


class Loop:
    def __init__(
        self,
        desk: Desk,
        engine: Engine,
        models: ResidentModels,
        finisher: Finisher[Artifacts],
        previews: Previews,
        resuming: Resuming,
    ) -> None:
        self.desk = desk
        self._engine = engine
        self._models = models
        self._finisher = finisher
        self._previews = previews
        self._resuming = resuming
        self._denoise_seconds: dict[str, float] = {}

    def warm_up(self, max_seconds: float) -> None:
        """Measure the models before the first job, so long for each."""
        self._engine.warm_up(max_seconds)

    def run(self) -> None:
        """Until the desk is done. What the engine raises (the device is gone) ends the worker: its leases end with it,
        as after a crash."""
        desk = threading.Thread(target=self.desk.run, name="desk", daemon=True)
        desk.start()
        try:
            events: Sequence[Event] = ()
            while not self.desk.over.is_set():
                self.desk.alive_at = time.monotonic()
                for order in self._orders(wait=not events):
                    self._obey(order)
                events = self._engine.step()
                for event in events:
                    self._hear(event)
                self._collect()
        finally:
            self.desk.over.set()
            desk.join()
            self._finisher.close()

    def _orders(self, wait: bool) -> list[Order]:
        orders: list[Order] = []
        try:
            orders.append(self.desk.orders.get(wait, _FINISHING_SECONDS if len(self._finisher) else _IDLE_SECONDS))
            while True:
                orders.append(self.desk.orders.get_nowait())
        except queue.Empty:
            return orders

    def _obey(self, order: Order) -> None:
        held = order.held
        if not isinstance(order, Admit):
            self._engine.evict(held.request_id)
            self._finisher.drop(held.request_id)
            self._forget(held.request_id)
            return
        with tasks.about(held.record):
            try:
                self._admit(held)
            except Exception as error:
                self.desk.tell(held, Broken(error))

    def _admit(self, held: Held) -> None:
        request = held.record.request
        model = self._models[request.model]
        generation = to_generation(request, model)
        snapshot = None if held.kept is None else self._resuming.open(held.kept, model)
        held.kept = None
        if snapshot is not None:
            try:
                self._engine.admit(held.request_id, request.model, generation, snapshot)
            except ValueError as error:
                logger.warning("%s: begins anew: %s", held.record.id, error)
            else:
                logger.info("%s: goes on from step %d of %d", held.record.id, snapshot.step, snapshot.steps)
                return
        self._engine.admit(held.request_id, request.model, generation)

    def _hear(self, event: Event) -> None:
        held = self.desk.find(event.request_id)
        if held is None:
            return
        model = held.record.request.model
        if isinstance(event, Progress):
            held.step = event.step
            resident = self._models[model]
            held.preview = held.preview or self._previews.take(
                event.request_id, event.step, event.steps, resident, lambda: self._engine.preview(event.request_id)
            )
            if event.step < event.steps:
                snapshot = self._resuming.take(
                    event.request_id,
                    resident,
                    lambda: self._engine.snapshot(event.request_id),
                    is_hasty=self.desk.worker.stop_signals > 0,
                )
                held.snapshot = snapshot or held.snapshot
        elif isinstance(event, Denoised):
            held.is_denoised = True
            self._denoise_seconds[event.request_id] = event.seconds
            self._finisher.submit(event.request_id, self._models[model], event.latents, held.record.request.fps)
        else:
            self._forget(event.request_id)
            self.desk.tell(held, Broken(event.error))

    def _collect(self) -> None:
        for result in self._finisher.finished():
            denoise_s = self._denoise_seconds.get(result.request_id)
            self._forget(result.request_id)
            held = self.desk.find(result.request_id)
            if held is None:
                continue
            if isinstance(result, Finished):
                self._learn(held.record.request.model, (result.timings.decode_s or 0) + (result.timings.encode_s or 0))
                timings = result.timings.model_copy(update={"denoise_s": denoise_s})
                self.desk.tell(held, Made(result.delivery, timings))
            else:
                self.desk.tell(held, Broken(result.error))

    def _learn(self, model: str, finishing_seconds: float) -> None:
        """A mean that forgets what is long ago."""
        known = self.desk.finishing_seconds
        before = known.get(model, finishing_seconds)
        known[model] = before + _WEIGHT_OF_LAST * (finishing_seconds - before)

    def _forget(self, request_id: str) -> None:
        self._previews.forget(request_id)
        self._resuming.forget(request_id)
        self._denoise_seconds.pop(request_id, None)
