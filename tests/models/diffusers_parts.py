"""Our parts as those of diffusers, which the tests compare with."""

from typing import Any

from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder
from torch import nn

from models.autoencoder.autoencoder import Autoencoder


def as_diffusers(vae: Autoencoder) -> Any:
    """diffusers' autoencoder of the same settings, with copies of the same weights."""
    vae_class: Any = AutoencoderKLTemporalDecoder if vae.config.temporal_decoder else AutoencoderKL
    settings = {name: value for name, value in vae.config.to_json().items() if not name.startswith("_")}
    made = nn.Module.to(vae_class(**settings), vae.dtype)  # the `to` of diffusers warns of every change of dtype
    made.load_state_dict(vae.state_dict())
    return made.eval()
