"""Our checkpoint folder -> models ready to run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from models.checkpoint.directory import TEXT_ENCODER, TOKENIZER, WEIGHTS, CheckpointConfig, find_vae, read_config
from models.checkpoint.keys import check_shapes
from models.conditioning import Condition
from models.config import Conditioning, TransformerConfig
from models.sampling.schedule import NoiseSchedule
from models.text import TextEncoder
from models.transformer import Transformer
from models.vae import VideoDecoder

# float16 is left out on CPUs, which are slow in it; what runs in it runs in bfloat16 there.
DTYPES = {
    "cpu": (torch.float32, torch.bfloat16),
    "cuda": (torch.float32, torch.bfloat16, torch.float16),
}


@dataclass(frozen=True)
class Checkpoint:
    """Everything that turns a condition and noise into frames. `text_encoder` is there for text models only."""

    settings: CheckpointConfig
    transformer: Transformer
    vae: VideoDecoder
    text_encoder: TextEncoder | None

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

    def condition(self, prompt: str | None = None, label: int | None = None) -> Condition:
        """One row for `prompt` (text models) or class `label` (class models). What the model does not read is ignored.

        Raises ValueError where the one that the model reads is not given, or is no class of it.
        """
        if self.config.conditioning is Conditioning.TEXT:
            if prompt is None:
                raise ValueError("got no prompt: this checkpoint is conditioned on text")
            return self._text_encoder().encode([prompt])
        if self.config.conditioning is Conditioning.CLASS:
            return Condition(labels=self._label(label))
        return Condition()

    def negative(self, negative_prompt: str = "", condition: Condition | None = None) -> Condition:
        """One row to guide away from: the encoded negative prompt, the null class, or nothing.

        `condition` is the row to guide towards. Checkpoints whose negative prompt has the length of the prompt, as
        the published text-to-video models, need it: ValueError without.
        """
        if self.config.conditioning is Conditioning.TEXT:
            return self._negative_text(negative_prompt, condition)
        if self.config.conditioning is Conditioning.CLASS:
            return Condition(labels=torch.tensor([self.config.num_classes]))
        return Condition()

    def _negative_text(self, negative_prompt: str, condition: Condition | None) -> Condition:
        if not self.settings.cut_negative_to_prompt:
            return self._text_encoder().encode([negative_prompt])
        if condition is None or condition.text is None:
            raise ValueError(
                "this checkpoint's negative prompt has the length of the prompt: give the prompt's condition"
            )
        return self._text_encoder().encode_cut(negative_prompt, condition.text.shape[1])

    def _label(self, label: int | None) -> Tensor:
        num_classes = self.config.num_classes or 0
        if label is None or not 0 <= label < num_classes:
            raise ValueError(f"got class label {label}: this checkpoint takes 0..{num_classes - 1}")
        return torch.tensor([label])

    def _text_encoder(self) -> TextEncoder:
        assert self.text_encoder is not None, "a text model is loaded with its text encoder"
        return self.text_encoder


def load_checkpoint(folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Checkpoint:
    """The checkpoint in `folder`, its weights in `dtype` on `device`, whatever they are stored in.

    Raises ValueError for a folder that is no checkpoint, for weights that do not fit it (by name), and for a device
    or dtype that it cannot run on.
    """
    device = torch.device(device)
    _check_device(device, dtype)
    settings = read_config(folder)
    vae = VideoDecoder.load(find_vae(folder), settings.scaling_factor, device, dtype)
    text_encoder = None
    if settings.max_tokens is not None:
        text_encoder = TextEncoder.load(folder / TEXT_ENCODER, folder / TOKENIZER, settings.max_tokens, device, dtype)
    check_parts(settings.transformer, vae, text_encoder)
    return Checkpoint(settings, load_transformer(folder, settings.transformer, device, dtype), vae, text_encoder)


def load_transformer(folder: Path, config: TransformerConfig, device: torch.device, dtype: torch.dtype) -> Transformer:
    """The transformer of a checkpoint folder. Raises ValueError naming missing, unexpected and mis-shaped weights."""
    path = folder / WEIGHTS
    if not path.is_file():
        raise ValueError(f"{folder} has no {WEIGHTS}")
    transformer = empty_transformer(config)
    state = load_file(path)
    check_shapes(str(path), {name: tensor.shape for name, tensor in state.items()}, transformer)
    narrowed = {name: tensor.to(device, dtype) for name, tensor in state.items()}
    transformer.load_state_dict(narrowed, assign=True)
    return transformer.eval().requires_grad_(False)


def empty_transformer(config: TransformerConfig) -> Transformer:
    """A transformer with the shapes of its weights, and no numbers or memory in them."""
    with torch.device("meta"):
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
