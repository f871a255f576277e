"""Many generations in shared batches, without a queue."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from torch import Tensor

from models.generate import Generation
from worker.engine.engine import Denoised, Engine, EngineSettings, Failed
from worker.engine.scheduler import Scheduler
from worker.loading.model_cache import LoadedModel, ModelCache


def denoise_many(
    model: LoadedModel, generations: Iterable[Callable[[], Generation]], settings: EngineSettings
) -> Iterator[tuple[int, Tensor | Exception]]:
    """Yield the number of each generation with its latents (1, T, C, H, W), or its error, as they finish.

    A generation is built when the engine has a free slot. A `ValueError` of that fails it alone.
    """
    models = ModelCache({model.card.id: model.card}, lambda _: model)
    models.load(model.card.id)
    engine = Engine(models, Scheduler(max_rows=settings.max_batch_rows), settings)
    waiting = enumerate(generations)
    while True:
        admitted = list(islice(waiting, engine.free_slots()))
        for number, build in admitted:
            try:
                engine.admit(str(number), model.card.id, build())
            except ValueError as error:
                yield number, error
        if not admitted and not engine.request_ids:
            return
        for event in engine.step():
            match event:
                case Denoised(request_id, latents):
                    yield int(request_id), latents
                case Failed(request_id, failure):
                    yield int(request_id), failure
