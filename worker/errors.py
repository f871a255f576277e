"""What can keep a worker from starting, and how the work on one video can end early."""

from jobs.errors import FrameditError


class StartupError(FrameditError):
    """The process cannot do its work as it is configured; the message says what to change. Starting again is no use."""

    code = "startup"


class NotFiniteError(FrameditError):
    """The model's numbers ran away for this request; they would again."""

    code = "not_finite"

    def __init__(self, num_inference_steps: int, sampler: str, guidance_scale: float) -> None:
        super().__init__(
            f"denoising diverged to NaN or infinity with {num_inference_steps} steps of {sampler!r} "
            f"at guidance scale {guidance_scale}: try more steps, less guidance or another sampler"
        )


class OutOfDeviceMemoryError(FrameditError):
    """The device has no room for this request, not even alone; it had none for a while."""

    code = "out_of_memory"


class ModelUnavailableError(FrameditError):
    """A model that this worker had loaded before does not load any more."""

    code = "model_unavailable"


class NoLongerWantedError(FrameditError):
    """The video was cancelled, deleted, or given to another worker while it was being made."""

    code = "no_longer_wanted"
