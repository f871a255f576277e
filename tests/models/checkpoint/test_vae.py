import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from models.checkpoint.vae import load_vae, load_video_decoder, save_vae
from tests.models.parts import make_vae

WEIGHTS = "diffusion_pytorch_model.safetensors"


def test_bfloat16_stays_near_float32(tmp_path: Path) -> None:
    save_vae(make_vae(), tmp_path)
    latents = torch.randn(1, 5, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    wide = load_video_decoder(tmp_path, 0.18215, "cpu", torch.float32).decode(latents)
    narrow = load_video_decoder(tmp_path, 0.18215, "cpu", torch.bfloat16).decode(latents)
    assert (wide.int() - narrow.int()).abs().float().mean() < 1.5


def test_float16_follows_the_folders_word_on_overflow(tmp_path: Path) -> None:
    save_vae(make_vae(levels=1, force_upcast=True), tmp_path / "upcast")
    save_vae(make_vae(levels=1, force_upcast=False), tmp_path / "plain")
    assert load_video_decoder(tmp_path / "upcast", 1.0, "cpu", torch.float16).vae.dtype == torch.float32
    assert load_video_decoder(tmp_path / "plain", 1.0, "cpu", torch.float16).vae.dtype == torch.float16


def test_refuses_folders_that_are_no_vae(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no config\.json"):
        load_vae(tmp_path, torch.float32)
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "VQModel"}))
    with pytest.raises(ValueError, match="VQModel"):
        load_vae(tmp_path, torch.float32)


def test_names_missing_and_unexpected_weights(tmp_path: Path) -> None:
    save_vae(make_vae(levels=1), tmp_path)
    state = load_file(tmp_path / WEIGHTS)
    state["extra.weight"] = state.pop("decoder.conv_in.bias")
    save_file(state, tmp_path / WEIGHTS, {"format": "pt"})
    with pytest.raises(ValueError, match=r"missing: decoder\.conv_in\.bias\s+unexpected: extra\.weight"):
        load_vae(tmp_path, torch.float32)


def test_names_mis_shaped_weights(tmp_path: Path) -> None:
    save_vae(make_vae(levels=1), tmp_path)
    state = load_file(tmp_path / WEIGHTS)
    state["decoder.conv_in.bias"] = torch.zeros(3)
    save_file(state, tmp_path / WEIGHTS, {"format": "pt"})
    with pytest.raises(ValueError, match=r"mis-shaped: decoder\.conv_in\.bias is \(3,\) instead of \(8,\)"):
        load_vae(tmp_path, torch.float32)


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_a_broken_file_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    save_vae(make_vae(levels=1), tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:-100])
    with pytest.raises(ValueError, match=r"(cannot read \S+:|is not valid JSON:) \S[^\n]*$"):
        load_vae(tmp_path, torch.float32)


def test_reads_the_attention_keys_of_early_autoencoders(tmp_path: Path) -> None:
    vae = make_vae(levels=1)
    save_vae(vae, tmp_path)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {}
    for key, tensor in vae.state_dict().items():
        for present, former in old.items():
            key = key.replace(f".{present}.", f".{former}.")
        state[key] = tensor
    assert "decoder.mid_block.attentions.0.proj_attn.bias" in state
    save_file(state, tmp_path / WEIGHTS)
    assert all(
        torch.equal(t, vae.state_dict()[key]) for key, t in load_vae(tmp_path, torch.float32).state_dict().items()
    )
    with torch.no_grad():
        theirs = AutoencoderKL.from_pretrained(tmp_path).decode(torch.ones(1, 4, 2, 2)).sample
        assert torch.equal(vae.decode(torch.ones(1, 4, 2, 2)), theirs)


def test_a_pickle_is_read_where_it_is_allowed_and_no_code_is_run(tmp_path: Path) -> None:
    vae = make_vae(levels=1)
    save_vae(vae, tmp_path)
    (tmp_path / WEIGHTS).unlink()
    torch.save(vae.state_dict(), tmp_path / "diffusion_pytorch_model.bin")
    assert load_vae(tmp_path, torch.float32).config == vae.config
    with pytest.raises(ValueError, match=r"holds no weights: none of diffusion_pytorch_model\.safetensors is in it"):
        load_video_decoder(tmp_path, 1.0, "cpu", torch.float32)
    torch.save({"weight": print}, tmp_path / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match="is refused: it asks for"):
        load_vae(tmp_path, torch.float32)
