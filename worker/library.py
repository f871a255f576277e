"""Generate frames from a checkpoint in your own Python program, without a server.

    from worker.library import load

    pipeline = load("checkpoints/demo-text")
    frames = pipeline.generate("a red circle moving right on a black background", seed=7)
    pipeline.save(frames, "video.mp4")

    for video in pipeline.generate_many([{"prompt": "a blue star spinning"}, {"prompt": "a red circle moving up"}]):
        pipeline.save(video.frames, f"video-{video.number}.mp4")

Shape legend: T frames, H height, W width.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from jobs.admission.cost import with_rows
from jobs.cards import ModelCard, read_card
from jobs.settings import Settings
from jobs.speed_plans import Speed, explain_refusal
from jobs.videos.record import FORMATS, RESULT_KINDS, Reference, VideoRequest, new_seed
from models.generate import Generation, OnStep
from worker.device import choose_device, choose_dtype
from worker.engine.denoise_many import denoise_many
from worker.engine.engine import EngineSettings
from worker.errors import AdapterUnavailableError
from worker.generate import make_latents, to_generation
from worker.loading.adapter_cache import AdapterCache
from worker.loading.model_cache import LoadedModel, load_model
from worker.output.formats.encoding import Encoding
from worker.output.formats.writers import WRITERS

DEFAULT_STRENGTH = 0.6

_OPTIONS = (
    "prompt",
    "class_label",
    "negative_prompt",
    "seed",
    "num_inference_steps",
    "guidance_scale",
    "sampler",
    "speed",
    "num_frames",
    "first_frames",
    "source",
    "strength",
    "adapters",
)


@dataclass(frozen=True)
class GeneratedVideo:
    """One result of `Pipeline.generate_many`.

    Attributes:
        number: The position of its request, from 0.
        frames: (T, H, W, 3) uint8 RGB; None if it failed.
        error: Why it failed.
    """

    number: int
    frames: NDArray[np.uint8] | None = None
    error: Exception | None = None


@dataclass(frozen=True)
class Pipeline:
    """A loaded checkpoint. Use one pipeline from one thread at a time."""

    model: LoadedModel
    adapters: AdapterCache

    @property
    def card(self) -> ModelCard:
        """The model card: defaults, limits, class names and example prompts."""
        return self.model.card

    def generate(
        self,
        prompt: str | None = None,
        *,
        class_label: int | str | None = None,
        negative_prompt: str | None = None,
        seed: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        sampler: str | None = None,
        speed: Speed = "exact",
        num_frames: int | None = None,
        first_frames: NDArray[np.uint8] | None = None,
        source: NDArray[np.uint8] | None = None,
        strength: float = DEFAULT_STRENGTH,
        adapters: Mapping[str, float] | None = None,
        on_step: OnStep = None,
    ) -> NDArray[np.uint8]:
        """Generate one video and return its frames, (T, H, W, 3) uint8 RGB.

        Args:
            prompt: What to show. Text models need it, other models ignore it.
            class_label: A class by name or index. Class models need it, other models ignore it.
            negative_prompt: What not to show. For text models with guidance.
            seed: 0 to 2**31 - 1. The same seed gives the same start noise on every device. Default: random.
            num_inference_steps: Number of denoising steps.
            guidance_scale: Scale of classifier-free guidance. 1 switches guidance off.
            sampler: One of `card.samplers`.
            speed: `balanced` and `fast` compute fewer rows, by one of `card.speed_plans`.
            num_frames: T. More than `card.trained_frames` are made in overlapping windows.
            first_frames: Frames (t, H, W, 3) that the video begins with, t < T: an image, or the end of another video.
            source: A video (T, H, W, 3) to change. The result begins from a noisy copy of it.
            strength: How much of `source` may change: the share of the denoising steps that is done, above 0 to 1.
            adapters: Adapters (LoRA) by the names of their folders, with the scale of each.
            on_step: Called after each denoising step with the steps done and the total number of steps, of all windows
                that are made one after the other.

        The model card gives every other default.

        Raises:
            ValueError: For a value that the checkpoint does not support.
            NotFiniteError: When the numbers diverge to NaN or infinity.
        """
        options = {
            "prompt": prompt,
            "class_label": class_label,
            "negative_prompt": negative_prompt,
            "seed": seed,
            "num_inference_steps": num_inference_steps,
            "guidance_scale": guidance_scale,
            "sampler": sampler,
            "speed": speed,
            "num_frames": num_frames,
            "first_frames": first_frames,
            "source": source,
            "strength": strength,
            "adapters": adapters,
        }
        return self._decode(make_latents(self._to_generation(options), self.model, on_step))

    def generate_many(
        self, requests: Iterable[Mapping[str, Any]], *, max_batch_rows: int = 8, deterministic: bool = False
    ) -> Iterator[GeneratedVideo]:
        """Generate videos in shared batches, and yield each as soon as it is done. One that fails, fails alone.

        Args:
            requests: For each video the arguments of `generate`, without `on_step`. They are read as slots are free.
            max_batch_rows: Maximum rows of a forward pass. A video with guidance takes two.
            deterministic: Do not batch passes whose rounding depends on the other videos of the batch, so that each
                video is the same bit for bit as that of `generate`.
        """
        settings = EngineSettings(max_batch_rows, deterministic=deterministic)
        generations = (partial(self._to_generation, options) for options in requests)
        for number, result in denoise_many(self.model, generations, settings):
            if isinstance(result, Exception):
                yield GeneratedVideo(number, error=result)
            else:
                yield GeneratedVideo(number, self._decode(result))

    def save(self, frames: NDArray[np.uint8], path: str | Path, fps: float | None = None) -> None:
        """Write frames (T, H, W, 3) to a file at `fps` frames a second. Default: the card's frame rate.

        The suffix chooses the format: .webm, .gif, .webp, .zip for a PNG of each frame, .png for a single frame. Any
        other is an H.264 MP4.

        Raises:
            ValueError: For several frames in a .png.
            EncodeError: When ffmpeg fails. No file is left at `path`.
        """
        path = Path(path)
        if path.suffix == ".png" and len(frames) != 1:
            raise ValueError(f"got {len(frames)} frames for a .png, which holds one; use .zip for a PNG of each frame")
        kind = "image" if path.suffix == ".png" else RESULT_KINDS[FORMATS.get(path.suffix, "mp4")]
        WRITERS[kind](frames, path, Encoding(self.card.fps if fps is None else fps))

    def _to_generation(self, options: Mapping[str, Any]) -> Generation:
        """Translate the arguments of `generate`. Raises `ValueError` for those that the checkpoint does not support."""
        if unknown := options.keys() - _OPTIONS:
            raise ValueError(f"unknown arguments: {', '.join(sorted(unknown))}; allowed are {', '.join(_OPTIONS)}")
        given = {name: value for name, value in options.items() if value is not None}
        first_frames, source = given.pop("first_frames", None), given.pop("source", None)
        strength = given.pop("strength", DEFAULT_STRENGTH)
        given["adapters"] = [{"name": name, "scale": scale} for name, scale in given.get("adapters", {}).items()]
        given["class_label"] = self._class_index(given.get("class_label"))
        request = VideoRequest.model_validate(self._defaults() | given)
        refusal = explain_refusal(
            self.card.id, self.card.speed_plans, request.speed, request.sampler, request.num_inference_steps
        )
        if refusal is not None:
            raise ValueError(f"got the speed {request.speed!r}: {refusal}")
        if source is not None:
            edit = Reference(use="edit", num_frames=len(source), strength=strength)
            request = request.model_copy(update={"num_frames": len(source), "reference": edit})
        elif first_frames is not None:
            first = Reference(use="first", num_frames=len(first_frames))
            request = request.model_copy(update={"reference": first})
        request = with_rows(request, self.card)
        try:
            adapters = self.adapters.load(request.adapters, self.model)
        except AdapterUnavailableError as error:
            raise ValueError(f"an adapter cannot be used: {error.__cause__}") from error
        return to_generation(request, self.model, first_frames if source is None else source, adapters)

    def _defaults(self) -> dict[str, Any]:
        card = self.card
        return {
            "model": card.id,
            "negative_prompt": card.negative_prompt,
            "clean_caption": card.clean_caption,
            "seed": new_seed(),
            "num_inference_steps": card.num_inference_steps,
            "guidance_scale": card.guidance_scale,
            "sampler": card.sampler,
            "num_frames": card.num_frames,
            "fps": card.fps,
            "height": card.height,
            "width": card.width,
        }

    def _decode(self, latents: Tensor) -> NDArray[np.uint8]:
        frames: NDArray[np.uint8] = self.model.checkpoint.vae.decode(latents).numpy()
        return frames

    def _class_index(self, class_label: int | str | None) -> int | None:
        if not isinstance(class_label, str):
            return class_label
        names = self.card.class_names or []
        if class_label not in names:
            allowed = f"allowed are {', '.join(names)}" if names else "this checkpoint has no classes"
            raise ValueError(f"got the class {class_label!r}: {allowed}")
        return names.index(class_label)


def load(
    folder: str | Path, device: str = "auto", dtype: str = "auto", *, adapters: str | Path = "adapters"
) -> Pipeline:
    """Load the checkpoint in `folder`.

    Args:
        folder: A checkpoint folder with a `card.json`, such as `checkpoints/demo-text`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`. `auto` is CUDA where PyTorch finds a device, else the CPU.
        dtype: `auto`, `float32`, `bfloat16` or `float16`. `auto` is float32 on the CPU and bfloat16 on CUDA.
        adapters: The folder that holds the folders of adapters.

    Raises:
        FrameditError: When the folder is no checkpoint, or cannot be loaded on this device.
    """
    folder = Path(folder)
    card = read_card(folder)
    torch_device = choose_device(device)
    model = load_model(folder, card, torch_device, choose_dtype(dtype, torch_device))
    return Pipeline(model, AdapterCache(Path(adapters), Settings.model_fields["max_adapter_bytes"].default))
