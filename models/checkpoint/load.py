"""Our checkpoint folder -> models ready to run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from models.checkpoint.directory import TEXT_ENCODER, TOKENIZER, VAE, WEIGHTS, CheckpointConfig, read_config
from models.checkpoint.keys import build_with_weights
from models.checkpoint.reading import reading
from models.checkpoint.text_encoder import load_text_encoder
from models.checkpoint.vae import load_video_decoder
from models.conditioning import Condition
from models.config import Conditioning, TransformerConfig
from models.kernels.support import find_obstacle, fuse
from models.sampling.schedule import NoiseSchedule
from models.text import TextEncoder
from models.transformer import Transformer
from models.vae import VideoDecoder
from models.without_numbers import without_numbers

# float16 is left out on CPUs, which are slow in it; what runs in it runs in bfloat16 there.
DTYPES = {
    "cpu": (torch.float32, torch.bfloat16),
    "cuda": (torch.float32, torch.bfloat16, torch.float16),
}

# The text encoder computes on the device of the other models, or on the CPU. When it is offloaded, it computes on the
# device, and its weights are there during an encoding only.
TextPlace = Literal["device", "cpu", "offload"]


@dataclass(frozen=True)
class Checkpoint:
    """Everything that turns a condition and noise into frames. `text_encoder` is there for text models only.

    With `fast`, every text is padded to the longest that the checkpoint takes, so that all passes have one shape.
    """

    settings: CheckpointConfig
    transformer: Transformer
    vae: VideoDecoder
    text_encoder: TextEncoder | None
    fast: bool = False

    @property
    def config(self) -> TransformerConfig:
        """The transformer's config."""
        return self.settings.transformer

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule of training."""
        return self.settings.schedule

    @property
    def frame_size(self) -> int:
        """Height and width of a frame in pixels."""
        return self.config.latent_size * self.vae.pixels_per_latent

    def weights(self) -> list[Tensor]:
        """The tensors of all models, on whatever devices they are."""
        modules: list[nn.Module] = [self.transformer, self.vae.vae]
        if self.text_encoder is not None:
            modules.append(self.text_encoder.encoder)
        return [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]

    def condition(
        self, prompt: str | None = None, label: int | None = None, *, clean_caption: bool = False
    ) -> Condition:
        """One row for `prompt` (text models) or class `label` (class models); the other one is ignored.

        Raises ValueError if the one that the model needs is missing, or is not one of its classes.
        """
        if self.config.conditioning is Conditioning.TEXT:
            if prompt is None:
                raise ValueError("got no prompt: this checkpoint is conditioned on text")
            return self._padded(self._positive_text(prompt, clean_caption))
        if self.config.conditioning is Conditioning.CLASS:
            return Condition(labels=self._label(label))
        return Condition()

    def negative(
        self, negative_prompt: str = "", condition: Condition | None = None, *, clean_caption: bool = False
    ) -> Condition:
        """One row to guide away from: the encoded negative prompt, the null class, or nothing.

        `condition` is the row to guide towards. Checkpoints whose negative prompt has the length of the prompt, such
        as the published text-to-video models, need it: ValueError without.
        """
        if self.config.conditioning is Conditioning.TEXT:
            return self._padded(self._negative_text(negative_prompt, condition, clean_caption))
        if self.config.conditioning is Conditioning.CLASS:
            return Condition(labels=torch.tensor([self.config.num_classes]))
        return Condition()

    def _positive_text(self, prompt: str, clean_caption: bool) -> Condition:
        if not self.settings.mask_feature:
            return self._encode_with_padding(prompt, clean_caption)
        return self._text_encoder().encode([prompt], clean_caption=clean_caption)

    def _negative_text(self, negative_prompt: str, condition: Condition | None, clean_caption: bool) -> Condition:
        if not self.settings.mask_feature:
            return self._encode_with_padding(negative_prompt, clean_caption)
        if not self.settings.cut_negative_to_prompt:
            return self._text_encoder().encode([negative_prompt], clean_caption=clean_caption)
        if condition is None or condition.text is None:
            raise ValueError(
                "this checkpoint's negative prompt has the length of the prompt: give the prompt's condition"
            )
        num_tokens = int(condition.mask().sum())
        return self._text_encoder().encode_cut(negative_prompt, num_tokens, clean_caption=clean_caption)

    def _encode_with_padding(self, prompt: str, clean_caption: bool) -> Condition:
        text_encoder = self._text_encoder()
        return text_encoder.encode_cut(prompt, text_encoder.max_tokens, clean_caption=clean_caption)

    def _padded(self, condition: Condition) -> Condition:
        return condition.padded(self.settings.max_tokens or 0) if self.fast else condition

    def _label(self, label: int | None) -> Tensor:
        num_classes = self.config.num_classes or 0
        if label is None or not 0 <= label < num_classes:
            raise ValueError(f"got class label {label}: this checkpoint takes 0..{num_classes - 1}")
        return torch.tensor([label])

    def _text_encoder(self) -> TextEncoder:
        assert self.text_encoder is not None, "a text model is loaded with its text encoder"
        return self.text_encoder


def load_checkpoint(
    folder: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    fast: bool = False,
    text_place: TextPlace = "device",
) -> Checkpoint:
    """The checkpoint in `folder`, its weights in `dtype` on `device`, whatever they are stored in.

    With `fast` it computes on CUDA with fused operations where they run (`models.kernels.support`), and all texts have
    one length. `text_place` is where the text encoder computes.

    Raises ValueError for a folder that is no checkpoint, for weights that do not fit it (by name), and for a device or
    dtype that it cannot run on.
    """
    device = torch.device(device)
    _check_device(device, dtype)
    settings = read_config(folder)
    vae = load_video_decoder(folder / VAE, settings.scaling_factor, device, dtype, floor_pixels=settings.floor_pixels)
    text_encoder = None
    if settings.max_tokens is not None:
        text_encoder = load_text_encoder(
            folder / TEXT_ENCODER,
            folder / TOKENIZER,
            settings.max_tokens,
            "cpu" if text_place == "cpu" else device,
            dtype,
            offload=text_place == "offload",
        )
    check_parts(settings.transformer, vae, text_encoder)
    transformer = load_transformer(folder, settings.transformer, device, dtype)
    if fast and find_obstacle(device, dtype) is None:
        fuse(transformer, vae)
    return Checkpoint(settings, transformer, vae, text_encoder, fast=fast and device.type == "cuda")


def load_transformer(folder: Path, config: TransformerConfig, device: torch.device, dtype: torch.dtype) -> Transformer:
    """The transformer of a checkpoint folder. Raises ValueError naming missing, unexpected and mis-shaped weights."""
    path = folder / WEIGHTS
    if not path.is_file():
        raise ValueError(f"{folder} has no {WEIGHTS}")
    with reading(path):
        state = load_file(path)
    transformer = build_with_weights(lambda: Transformer(config), state, str(path), dtype, device)
    return transformer.requires_grad_(False)


def empty_transformer(config: TransformerConfig) -> Transformer:
    """A transformer with the shapes of its weights, and no numbers or memory in them."""
    with without_numbers():
        return Transformer(config)


def check_parts(config: TransformerConfig, vae: VideoDecoder, text_encoder: TextEncoder | None) -> None:
    """Raise ValueError unless the VAE and the text encoder are of the sizes that the transformer of `config` needs."""
    if vae.latent_channels != config.latent_channels:
        raise ValueError(
            f"the VAE has {vae.latent_channels} latent channels, but the transformer works on {config.latent_channels}"
        )
    if text_encoder is not None and text_encoder.width != config.text_width:
        raise ValueError(
            f"the text encoder's width is {text_encoder.width}, but the transformer reads text of {config.text_width}"
        )


def _check_device(device: torch.device, dtype: torch.dtype) -> None:
    if device.type not in DTYPES:
        raise ValueError(f"got device {device}: allowed are {', '.join(DTYPES)}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"got device {device}, but PyTorch finds no CUDA device here: use cpu")
    if dtype not in DTYPES[device.type]:
        allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES[device.type])
        raise ValueError(f"got dtype {str(dtype).removeprefix('torch.')} on {device.type}: allowed there are {allowed}")
