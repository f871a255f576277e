"""Conversions of tiny diffusers folders, checked by the outputs of the loaded checkpoint."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, LattePipeline
from safetensors.torch import save_file
from torch import Tensor

from models.checkpoint.load import Checkpoint, load_checkpoint
from models.checkpoint.vae import save_vae
from models.conditioning import Condition
from models.config import Layout, Temporal
from models.conversion.conversion import Conversion, Output
from models.conversion.text_family import HYBRID_TEXT_MODEL, TextOptions, convert_diffusers
from models.generate import Generation, denoise, start_noise
from models.sampling.schedule import BetaSchedule, NoiseSchedule, PredictionType, Spacing
from tests.golden.loading import relative_error
from tests.models.conversion.running import TOLERANCE, run_golden
from tests.models.conversion.sources import (
    golden_state,
    golden_tensors,
    make_latte,
    make_scheduler,
    save_diffusers_folder,
    save_training_output,
    shrink_published_models,
)
from tests.models.diffusers_parts import as_diffusers
from tests.models.parts import PROMPTS, make_temporal_vae, make_text_encoder, make_tokenizer, make_vae
from tests.models.transformers_parts import as_transformers, as_transformers_tokenizer


@pytest.fixture(autouse=True)
def _small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_published_models(monkeypatch)


@pytest.fixture(scope="module")
def latte(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_diffusers_folder(tmp_path_factory.mktemp("latte"))


def convert(source: Path, folder: Path, output: dict[str, Any] | None = None, **options: Any) -> Conversion:
    return convert_diffusers(source, TextOptions(**options), Output(folder, **(output or {})))


def make_pipeline(folder: Path) -> Any:
    tokenizer = as_transformers_tokenizer(make_tokenizer(), folder)
    encoder, vae = as_transformers(make_text_encoder()), as_diffusers(make_vae())
    return LattePipeline(tokenizer, encoder, vae, make_latte(), make_scheduler())


def test_a_diffusers_folder_gives_the_video_of_diffusers_pipeline(tmp_path: Path, latte: Path) -> None:
    """Prompts, text encoder, guidance, transformer, schedule and VAE together."""
    made = convert(latte, tmp_path / "out")
    assert (made.model_name, made.frame_size, made.merged) == ("LatteTransformer3DModel", 64, ())
    checkpoint = load_checkpoint(tmp_path / "out")
    pipeline = make_pipeline(tmp_path / "tokenizer")
    pipeline.set_progress_bar_config(disable=True)
    cases = (
        (PROMPTS[0], "two stars", False),
        ("Two Stars ", PROMPTS[0], False),
        ("A <b>red</b> & circle", "(two)", True),
    )
    for prompt, negative, clean_caption in cases:
        video = pipeline(
            prompt,
            negative_prompt=negative,
            num_inference_steps=4,
            guidance_scale=7.5,
            video_length=4,
            latents=start_noise(checkpoint.config, 4, seed=3).transpose(1, 2),
            output_type="np",
            clean_caption=clean_caption,
        ).frames[0]
        frames = checkpoint.vae.decode(generate(checkpoint, prompt, negative, clean_caption))
        pixels = torch.tensor(video) * 255
        assert frames.float().std() > 5, "a picture of one colour would compare equal too easily"
        # Rounded down; sums in another order move a pixel across the edge of a level now and then.
        assert ((pixels - frames.float()) > -0.01).all()
        assert ((pixels - frames.float()) < 1.01).all()


def generate(checkpoint: Checkpoint, prompt: str, negative: str, clean_caption: bool) -> Tensor:
    condition = checkpoint.condition(prompt, clean_caption=clean_caption)
    generation = Generation(
        seed=3,
        num_inference_steps=4,
        guidance_scale=7.5,
        sampler="ddim",
        num_frames=4,
        condition=condition,
        negative=checkpoint.negative(negative, condition, clean_caption=clean_caption),
    )
    return denoise(checkpoint.transformer, checkpoint.schedule, generation)


@torch.no_grad()
def run_latte(checkpoint: Checkpoint) -> tuple[Tensor, Tensor]:
    """The outputs of the checkpoint's transformer and of diffusers' Latte for the same masked batch."""
    x, t = torch.randn(2, 4, 4, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([3, 900])
    condition = checkpoint.text_encoder.encode(PROMPTS[:2]) if checkpoint.text_encoder else Condition()
    assert condition.text is not None
    # diffusers wants the mask once for each frame.
    mask = condition.mask().repeat_interleave(4, dim=0)
    bias = (1 - mask[:, None].float()) * -10000.0
    theirs = make_latte()(x.transpose(1, 2), t, condition.text, bias).sample.transpose(1, 2)
    return checkpoint.transformer(x, t, condition), theirs


@pytest.mark.parametrize(
    ("options", "file"),
    [
        ({}, "diffusion_pytorch_model.safetensors"),
        ({"max_shard_size": "50KB"}, "diffusion_pytorch_model.safetensors.index.json"),
        ({"safe_serialization": False}, "diffusion_pytorch_model.bin"),
    ],
)
def test_reads_every_kind_of_transformer_file_as_diffusers_does(
    tmp_path: Path, latte: Path, options: dict[str, Any], file: str
) -> None:
    source = tmp_path / "in"
    shutil.copytree(latte, source, ignore=shutil.ignore_patterns("transformer"))
    make_latte().save_pretrained(source / "transformer", **options)
    assert (source / "transformer" / file).is_file()
    convert(source, tmp_path / "out")
    ours, theirs = run_latte(load_checkpoint(tmp_path / "out"))
    assert relative_error(ours, theirs) < TOLERANCE


def test_a_text_training_output_replaces_the_transformer(tmp_path: Path, latte: Path) -> None:
    source = save_training_output(tmp_path / "x.pt", golden_state("framedit_h_t2v"))
    made = convert(latte, tmp_path / "out", transformer=source)
    assert made.model_name == HYBRID_TEXT_MODEL
    assert made.config.transformer.temporal is Temporal.HYBRID
    tensors = golden_tensors("framedit_h_t2v")
    assert relative_error(run_golden(load_checkpoint(tmp_path / "out"), tensors), tensors["out"]) < TOLERANCE


def test_a_training_output_of_the_folders_own_design_replaces_it_too(tmp_path: Path, latte: Path) -> None:
    source = save_training_output(tmp_path / "x.pt", golden_state("latte_t2v"))
    made = convert(latte, tmp_path / "out", transformer=source, model_name="LatteT2V")
    assert made.config.transformer.temporal is Temporal.LOCAL
    tensors = golden_tensors("latte_t2v")
    assert relative_error(run_golden(load_checkpoint(tmp_path / "out"), tensors), tensors["out"]) < TOLERANCE


def test_a_lora_is_merged_before_weights_are_folded(tmp_path: Path, latte: Path) -> None:
    """The q, k and v that share one weight here have LoRAs of their own."""
    state = golden_state("framedit_h_t2v")
    modules = ("transformer_blocks.0.attn2.to_k", "temporal_transformer_blocks.1.attn1.attention.to_q")
    down, up = torch.randn(2, 32), torch.randn(32, 2)
    lora = {}
    for module in modules:
        lora |= {f"base_model.model.{module}.lora_A.weight": down.clone()}
        lora |= {f"base_model.model.{module}.lora_B.weight": up.clone()}
        state[f"{module}.weight"] = state[f"{module}.weight"] - 4 / 2 * up @ down
    save_file(lora, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 4, "r": 2}))
    source = save_training_output(tmp_path / "x.pt", state)
    made = convert(latte, tmp_path / "out", transformer=source, lora=tmp_path / "adapter_model.safetensors")
    assert made.merged == tuple(sorted(f"{module}.weight" for module in modules))
    tensors = golden_tensors("framedit_h_t2v")
    assert relative_error(run_golden(load_checkpoint(tmp_path / "out"), tensors), tensors["out"]) < TOLERANCE


@pytest.mark.parametrize(("weights", "taken"), [(None, "model"), ("model", "model"), ("ema", "ema")])
def test_takes_the_weights_of_training_as_published_or_the_average_asked_for(
    tmp_path: Path, latte: Path, weights: str | None, taken: str
) -> None:
    state = golden_state("framedit_h_t2v")
    other = {key: tensor + 1 for key, tensor in state.items()}
    entries = {"model": state, "ema": other} if taken == "model" else {"model": other, "ema": state}
    torch.save(entries, tmp_path / "x.pt")
    lines: list[str] = []
    made = convert(latte, tmp_path / "out", {"report": lines.append}, transformer=tmp_path / "x.pt", weights=weights)
    tensors = golden_tensors("framedit_h_t2v")
    assert relative_error(run_golden(load_checkpoint(tmp_path / "out"), tensors), tensors["out"]) < TOLERANCE
    assert f"weights: {taken}" in lines
    assert made.config.provenance["weights"] == taken


def test_a_folder_has_no_weights_to_choose_from(tmp_path: Path, latte: Path) -> None:
    with pytest.raises(ValueError, match="holds one set of weights"):
        convert(latte, tmp_path / "out", weights="ema")


def test_decodes_with_the_plain_vae_as_published_or_with_the_temporal_decoder_asked_for(
    tmp_path: Path, latte: Path
) -> None:
    source = shutil.copytree(latte, tmp_path / "in")
    save_vae(make_temporal_vae(), source / "vae_temporal_decoder")
    for asked, folder, kind in (
        (False, "vae", "AutoencoderKL"),
        (True, "vae_temporal_decoder", "AutoencoderKLTemporalDecoder"),
    ):
        lines: list[str] = []
        made = convert(source, tmp_path / folder, {"report": lines.append}, temporal_decoder=asked)
        assert load_checkpoint(tmp_path / folder).vae.vae.config.class_name == kind
        assert f"decoder: {folder}/, of two" in lines
        assert made.config.provenance["vae"] == folder


def make_framedit_folder(folder: Path, latte: Path, **changes: Any) -> Path:
    """A folder as diffusers saves the published `FrameDiT_H_T2V`: its own class name and settings."""
    shutil.copytree(latte, folder, ignore=shutil.ignore_patterns("transformer"))
    settings = {
        "_class_name": "FrameDiT_H_T2V",
        "_diffusers_version": "0.24.0",
        "activation_fn": "gelu-approximate",
        "attention_bias": True,
        "attention_mode": "math",
        "attention_type": "default",
        "bias_type": "col_row",
        "caption_channels": 24,
        "col_dim": 16,
        "cross_attention_dim": 32,
        "disable_matrix_attention": False,
        "fuse_mode": "concat",
        "in_channels": 4,
        "norm_elementwise_affine": False,
        "norm_eps": 1e-6,
        "norm_type": "ada_norm_single",
        "num_col_attn_heads": 8,
        "num_layers": 2,
        "num_row_attn_heads": 4,
        "out_channels": 8,
        "patch_size": 2,
        "qk_col_attn_head_dim": 1,
        "row_attn_head_dim": 8,
        "sample_size": 8,
        "u_type": "pure-softmax",
        "use_bias": True,
        "v_col_attn_head_dim": 2,
        "video_length": 4,
    }
    (folder / "transformer").mkdir()
    (folder / "transformer" / "config.json").write_text(json.dumps(settings | changes))
    weights = {key: tensor.contiguous() for key, tensor in golden_state("framedit_h_t2v").items()}
    save_file(weights, folder / "transformer" / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    return folder


def test_a_folder_of_the_published_hybrid_model_converts(tmp_path: Path, latte: Path) -> None:
    made = convert(make_framedit_folder(tmp_path / "in", latte), tmp_path / "out")
    assert (made.model_name, made.config.transformer.temporal) == ("FrameDiT_H_T2V", Temporal.HYBRID)
    tensors = golden_tensors("framedit_h_t2v")
    assert relative_error(run_golden(load_checkpoint(tmp_path / "out"), tensors), tensors["out"]) < TOLERANCE


def test_a_hybrid_model_without_its_matrix_attention_is_a_local_one(tmp_path: Path, latte: Path) -> None:
    source = make_framedit_folder(tmp_path / "in", latte, disable_matrix_attention=True)
    assert convert(source, tmp_path / "out").config.transformer.temporal is Temporal.LOCAL


@pytest.mark.parametrize(("alpha", "used"), [(None, 32.0), (4.0, 4.0)])
def test_a_training_output_with_lora_is_merged(tmp_path: Path, latte: Path, alpha: float | None, used: float) -> None:
    """Saved by the published training with `use_lora: True`: peft's prefix on all keys, the LoRA beside its layer."""
    generator = torch.Generator().manual_seed(5)
    wrapped = {}
    for key, tensor in golden_state("framedit_h_t2v").items():
        module, _, kind = key.rpartition(".")
        if module.endswith((".to_q", ".to_out.0")):
            key = f"{module}.base_layer.{kind}"
            if kind == "weight":
                down, up = (torch.randn(shape, generator=generator) for shape in ((2, 32), (32, 2)))
                wrapped[f"base_model.model.{module}.lora_A.default.weight"] = down
                wrapped[f"base_model.model.{module}.lora_B.default.weight"] = up
                tensor = tensor - used / 2 * up @ down
        wrapped[f"base_model.model.{key}"] = tensor
    torch.save({"model": wrapped, "ema": wrapped, "train_steps": 5}, tmp_path / "x.pt")
    lines: list[str] = []
    made = convert(latte, tmp_path / "out", {"report": lines.append}, transformer=tmp_path / "x.pt", lora_alpha=alpha)
    tensors = golden_tensors("framedit_h_t2v")
    assert relative_error(run_golden(load_checkpoint(tmp_path / "out"), tensors), tensors["out"]) < TOLERANCE
    assert f"merging the LoRA of the training output, alpha {used:g}" in lines
    assert "transformer_blocks.0.attn2.to_q.weight" in made.merged


@torch.no_grad()
def test_without_temporal_attention_every_frame_is_computed_alone(tmp_path: Path, latte: Path) -> None:
    made = convert(latte, tmp_path / "out", temporal_attention=False)
    assert (made.config.transformer.layout, made.config.transformer.depth) == (Layout.SPATIAL, 2)
    checkpoint = load_checkpoint(tmp_path / "out")
    x, t = torch.randn(1, 4, 4, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([900])
    condition = checkpoint.condition(PROMPTS[0])
    assert condition.text is not None
    theirs = make_latte()(x.transpose(1, 2), t, condition.text, enable_temporal_attentions=False).sample.transpose(1, 2)
    ours = checkpoint.transformer(x, t, Condition(text=condition.text))
    assert relative_error(ours, theirs) < TOLERANCE
    alone = checkpoint.transformer(x[:, 2:3], t, Condition(text=condition.text))
    torch.testing.assert_close(ours[:, 2:3], alone, rtol=1e-4, atol=1e-4)


def test_without_mask_feature_both_prompts_keep_their_padding(tmp_path: Path, latte: Path) -> None:
    convert(latte, tmp_path / "out", mask_feature=False)
    checkpoint = load_checkpoint(tmp_path / "out")
    pipeline = make_pipeline(tmp_path / "tokenizer")
    prompt, negative = pipeline.encode_prompt(PROMPTS[0], negative_prompt="two stars", mask_feature=False)
    condition = checkpoint.condition(PROMPTS[0])
    assert condition.text is not None
    torch.testing.assert_close(condition.text, prompt, rtol=1e-4, atol=1e-4)
    other = checkpoint.negative("two stars", condition)
    torch.testing.assert_close(other.text, negative, rtol=1e-4, atol=1e-4)
    assert condition.mask().all()
    assert other.mask().all()


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("transformer/config.json", {"_class_name": "UNet3D"}, "the transformer is a 'UNet3D'; known are LatteT2V"),
        ("transformer/config.json", {"activation_fn": "geglu"}, "activation_fn is 'geglu'"),
        ("transformer/config.json", {"num_layers": 1}, r"unexpected: transformer_blocks\.1\."),
        ("transformer/config.json", {"caption_channels": 8}, r"mis-shaped: caption_projection\.linear_1"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "squaredcos_cap_v2"}, "supported are linear, scaled"),
        ("scheduler/scheduler_config.json", {"thresholding": True}, "thresholding is True; only False is supported"),
        ("scheduler/scheduler_config.json", {"use_karras_sigmas": True}, "use_karras_sigmas is True, a setting that"),
        ("scheduler/scheduler_config.json", {"trained_betas": [0.1]}, "trained_betas is"),
        ("scheduler/scheduler_config.json", {"solver_order": 3}, "solver_order is 3; only 2 is supported"),
    ],
)
def test_names_the_faults_of_a_diffusers_folder(
    tmp_path: Path, latte: Path, file: str, change: dict[str, Any], message: str
) -> None:
    source = shutil.copytree(latte, tmp_path / "in")
    (source / file).write_text(json.dumps(json.loads((source / file).read_text()) | change))
    with pytest.raises(ValueError, match=message):
        convert(source, tmp_path / "out")


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder", "tokenizer"])
def test_names_the_part_that_a_diffusers_folder_lacks(tmp_path: Path, latte: Path, part: str) -> None:
    source = shutil.copytree(latte, tmp_path / "in", ignore=shutil.ignore_patterns(part))
    with pytest.raises(ValueError, match=f"in/{part}"):
        convert(source, tmp_path / "out")


def test_takes_the_schedule_of_the_folder_or_else_the_published_one(tmp_path: Path, latte: Path) -> None:
    source = shutil.copytree(latte, tmp_path / "in")
    DDIMScheduler(
        num_train_timesteps=500,
        beta_start=2e-4,
        beta_end=1e-2,
        beta_schedule="scaled_linear",
        steps_offset=1,
        set_alpha_to_one=False,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
    ).save_pretrained(source / "scheduler")
    expected = NoiseSchedule(
        num_train_timesteps=500,
        beta_start=2e-4,
        beta_end=1e-2,
        beta_schedule=BetaSchedule.SCALED_LINEAR,
        rescale_betas_zero_snr=True,
        prediction_type=PredictionType.VELOCITY,
        timestep_spacing=Spacing.TRAILING,
        steps_offset=1,
        set_alpha_to_one=False,
    )
    assert convert(source, tmp_path / "a").config.schedule == expected
    assert load_checkpoint(tmp_path / "a").schedule == expected
    clean = convert(source, tmp_path / "b", prediction=PredictionType.CLEAN).config.schedule
    assert clean.prediction_type is PredictionType.CLEAN
    shutil.rmtree(source / "scheduler")
    assert convert(source, tmp_path / "c").config.schedule == NoiseSchedule(timestep_spacing=Spacing.LEADING)


def test_settings_that_the_file_left_to_defaults_stay_with_the_sampler(tmp_path: Path, latte: Path) -> None:
    source = shutil.copytree(latte, tmp_path / "in")
    path = source / "scheduler" / "scheduler_config.json"
    settings = json.loads(path.read_text()) | {"_use_default_values": ["timestep_spacing"]}
    path.write_text(json.dumps(settings))
    assert convert(source, tmp_path / "out").config.schedule.timestep_spacing is None
    assert EulerDiscreteScheduler.from_pretrained(source / "scheduler").config.timestep_spacing == "linspace"
