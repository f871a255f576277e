import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder

from models.autoencoder.autoencoder import Autoencoder
from models.autoencoder.config import AutoencoderConfig
from models.checkpoint.vae import load_vae, read_vae_config, save_vae

SETTINGS = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.4.2",
    "act_fn": "silu",
    "block_out_channels": [8, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "layers_per_block": 2,
    "norm_num_groups": 4,
    "sample_size": 256,
}
TEMPORAL = {
    "_class_name": "AutoencoderKLTemporalDecoder",
    "block_out_channels": [32, 64],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "sample_size": [576, 1024],
}


def read(folder: Path, settings: dict[str, Any]) -> AutoencoderConfig:
    (folder / "config.json").write_text(json.dumps(settings))
    return read_vae_config(folder)


def test_old_configs_get_the_defaults_of_diffusers(tmp_path: Path) -> None:
    config = read(tmp_path, SETTINGS)
    theirs = AutoencoderKL.from_config(SETTINGS).config
    for name, value in config.to_json().items():
        if not name.startswith("_"):
            assert theirs[name] == (tuple(value) if isinstance(theirs[name], tuple) else value), name


@pytest.mark.parametrize("settings", [SETTINGS, TEMPORAL])
def test_diffusers_reads_what_is_written(tmp_path: Path, settings: dict[str, Any]) -> None:
    vae = Autoencoder(read(tmp_path, settings))
    save_vae(vae.half(), tmp_path / "vae")
    vae_class: Any = AutoencoderKLTemporalDecoder if settings is TEMPORAL else AutoencoderKL
    loaded, info = vae_class.from_pretrained(
        tmp_path / "vae", torch_dtype=torch.float16, low_cpu_mem_usage=False, output_loading_info=True
    )
    assert not any(info.values())
    assert all(torch.equal(tensor, loaded.state_dict()[key]) for key, tensor in vae.state_dict().items())
    assert load_vae(tmp_path / "vae", torch.float16).config == vae.config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"down_block_types": ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"]}, "down_block_types is .*AttnDown"),
        ({"down_block_types": ["DownEncoderBlock2D"]}, "only DownEncoderBlock2D, one for each level, is supported"),
        ({"up_block_types": ["UpDecoderBlock2D", "AttnUpDecoderBlock2D"]}, "up_block_types is .*AttnUp"),
        ({"up_block_types": None}, "up_block_types is None"),
        ({"act_fn": "gelu"}, "act_fn is 'gelu'; only 'silu' is supported"),
        ({"shift_factor": 0.1}, "shift_factor is 0.1; only None is supported"),
        ({"latents_mean": [0, 0, 0, 0]}, r"latents_mean is \[0, 0, 0, 0\]; only None"),
        ({"latents_std": [1, 1, 1, 1]}, r"latents_std is \[1, 1, 1, 1\]; only None"),
        ({"quantization_config": {}, "patch_size": 2}, "unknown setting patch_size, quantization_config; known are"),
        ({"norm_num_groups": 3}, r"\(8, 16\): each must be a multiple of norm_num_groups \(3\)"),
        ({"block_out_channels": 8}, "block_out_channels is 8: a list is needed"),
        ({"layers_per_block": 0}, "layers_per_block is 0: positive whole numbers are needed"),
        ({"latent_channels": "4"}, "latent_channels is '4'"),
        ({"norm_num_groups": None}, "norm_num_groups is None"),
        ({"scaling_factor": None}, "scaling_factor is None: a number is needed"),
    ],
)
def test_refuses_settings_that_are_not_implemented(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"cannot use \S+config\.json: .*{message}"):
        read(tmp_path, SETTINGS | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm_num_groups": 16}, "norm_num_groups is 16; only 32 is supported"),
        ({"use_post_quant_conv": True}, "use_post_quant_conv is True; only False is supported"),
        ({"mid_block_add_attention": False}, "mid_block_add_attention is False; only True is supported"),
    ],
)
def test_a_temporal_decoder_has_fewer_choices(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, TEMPORAL | change)
