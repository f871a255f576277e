"""Errors that keep a worker from starting, and errors that end the work on one video."""

from jobs.errors import FrameditError


class StartupError(FrameditError):
    """The configuration is unusable; the message says what to change. A restart does not help."""

    code = "startup"


class NotFiniteError(FrameditError):
    """Denoising diverged for this request, and would diverge again."""

    code = "not_finite"

    def __init__(self, num_inference_steps: int, sampler: str, guidance_scale: float) -> None:
        super().__init__(
            f"denoising diverged to NaN or infinity with {num_inference_steps} steps of {sampler!r} "
            f"at guidance scale {guidance_scale}: try more steps, less guidance or another sampler"
        )


class OutOfDeviceMemoryError(FrameditError):
    """The device had no memory for this request for a while, even without other requests."""

    code = "out_of_memory"


class ModelUnavailableError(FrameditError):
    """A model that this worker loaded before no longer loads."""

    code = "model_unavailable"


class AdapterUnavailableError(FrameditError):
    """An adapter of a request is not on this worker, or cannot be used."""

    code = "adapter_unavailable"

    def __init__(self, name: str, model: str) -> None:
        super().__init__(
            f"the adapter {name!r} of {model} cannot be used: it was removed or changed after the request; "
            "GET /v1/adapters shows those that are available"
        )


class NoLongerWantedError(FrameditError):
    """The video was cancelled, deleted, or given to another worker during the work on it."""

    code = "no_longer_wanted"
