"""Conversions of tiny files of the real kinds, checked by what the loaded checkpoint computes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, LattePipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.checkpoint.convert import HYBRID_TEXT_MODEL, Conversion, convert_diffusers, convert_published
from models.checkpoint.load import Checkpoint, load_checkpoint
from models.conditioning import Condition
from models.config import Conditioning, Temporal
from models.generate import Generation, denoise, start_noise
from models.sampling.schedule import NoiseSchedule
from tests.golden.loading import relative_error
from tests.models.checkpoint.sources import (
    golden_state,
    golden_tensors,
    make_latte,
    make_scheduler,
    save_diffusers_folder,
    save_training_output,
    save_vae,
    shrink_published_models,
)
from tests.models.parts import PROMPTS, make_temporal_vae, make_text_encoder, make_tokenizer, make_vae

TOLERANCE = 1e-4
GOLDEN_NAMES = {
    "framedit_h_softmax_concat": "FrameDiTH-S/8-16/2-softmax_u-concat",
    "framedit_h_sum_uncond": "FrameDiTH-S/8-16/2-sum",
    "framedit_g": "FrameDiTG-S/8-16/2",
    "latte": "Latte-S/2",
    "dit3d": "DiT3D-S/2",
}


@pytest.fixture(autouse=True)
def _small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_published_models(monkeypatch)


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_vae(tmp_path_factory.mktemp("vae"))


@pytest.fixture(scope="module")
def latte(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_diffusers_folder(tmp_path_factory.mktemp("latte"))


def convert(source: Path, output: Path, vae: Path, /, **changes: Any) -> Conversion:
    options: dict[str, Any] = {
        "model_name": "Latte-S/2",
        "num_frames": 4,
        "image_size": 64,
        "num_classes": 5,
        "vae": vae,
    }
    return convert_published(source, output, **(options | changes))


@torch.no_grad()
def run_golden(checkpoint: Checkpoint, tensors: dict[str, Tensor]) -> Any:
    """The output for a golden file's input, in its own layout."""
    if checkpoint.config.conditioning is Conditioning.TEXT:
        condition = Condition(text=tensors["in.text"], text_mask=tensors["in.text_mask"])
        return checkpoint.transformer(tensors["in.x"].transpose(1, 2), tensors["in.t"], condition).transpose(1, 2)
    condition = Condition(labels=tensors.get("in.y"))
    return checkpoint.transformer(tensors["in.x"], tensors["in.t"], condition)


@pytest.mark.parametrize("golden", GOLDEN_NAMES)
def test_a_training_output_gives_the_published_outputs(tmp_path: Path, vae: Path, golden: str) -> None:
    source = save_training_output(tmp_path / "0400000.pt", golden_state(golden), opt={"state": {}}, model={})
    tensors = golden_tensors(golden)
    num_classes = 5 if "in.y" in tensors else 0
    made = convert(source, tmp_path / "out", vae, model_name=GOLDEN_NAMES[golden], num_classes=num_classes)
    assert relative_error(run_golden(load_checkpoint(tmp_path / "out"), tensors), tensors["out"]) < TOLERANCE
    assert (made.frame_size, made.model_name, made.dtype) == (64, GOLDEN_NAMES[golden], torch.float32)
    assert made.config.transformer.num_classes == (num_classes or None)
    assert made.parameters > 10_000


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_stores_all_weights_in_the_dtype_asked_for(tmp_path: Path, vae: Path, dtype: torch.dtype) -> None:
    source = save_training_output(tmp_path / "x.pt", golden_state("latte"))
    convert(source, tmp_path / "out", vae, dtype=dtype)
    for file in tmp_path.glob("out/**/*.safetensors"):
        assert {tensor.dtype for tensor in load_file(file).values()} == {dtype}
    tensors = golden_tensors("latte")
    assert relative_error(run_golden(load_checkpoint(tmp_path / "out"), tensors), tensors["out"]) < 0.02


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("blocks.1.attn.qkv.bias"), r"missing: blocks\.1\.attn\.qkv\.bias"),
        (
            lambda state: state.update({"blocks.9.mlp.fc1.bias": torch.zeros(1)}),
            r"unexpected: blocks\.9\.mlp\.fc1\.bias",
        ),
        (lambda state: state.update({"pos_embed": torch.zeros(1, 4, 32)}), r"mis-shaped: pos_embed \(1, 4, 32\)"),
    ],
)
def test_names_wrong_keys_and_leaves_nothing(tmp_path: Path, vae: Path, change: Any, message: str) -> None:
    state = golden_state("latte")
    change(state)
    source = save_training_output(tmp_path / "x.pt", state)
    with pytest.raises(ValueError, match=message):
        convert(source, tmp_path / "out", vae)
    assert [file.name for file in tmp_path.iterdir()] == ["x.pt"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_name": "Latte-Q/2"}, "unknown model name 'Latte-Q/2'"),
        ({"model_name": "LatteT2V"}, "LatteT2V is a text model"),
        ({"image_size": 65}, "image_size is 65: .* makes 64"),
        ({"image_size": 128}, "mis-shaped: pos_embed"),
        ({"num_frames": 8}, "mis-shaped: temp_embed"),
        ({"num_classes": 6}, "mis-shaped: y_embedder"),
        ({"num_classes": None}, "unexpected: y_embedder"),
        ({"vae": Path("nowhere")}, "nowhere is not a VAE folder"),
    ],
)
def test_says_which_option_does_not_fit(tmp_path: Path, vae: Path, changes: dict[str, Any], message: str) -> None:
    source = save_training_output(tmp_path / "x.pt", golden_state("latte"))
    with pytest.raises(ValueError, match=message):
        convert(source, tmp_path / "out", vae, **changes)


def test_refuses_a_vae_that_does_not_fit(tmp_path: Path) -> None:
    source = save_training_output(tmp_path / "x.pt", golden_state("latte"))
    make_vae(latent_channels=8).save_pretrained(tmp_path / "channels")
    with pytest.raises(ValueError, match="the VAE has 8 latent channels, but the transformer works on 4"):
        convert(source, tmp_path / "out", tmp_path / "channels")
    make_vae(levels=3).save_pretrained(tmp_path / "factor")
    with pytest.raises(ValueError, match=r"4 pixels to a latent position\) Latte-S/2 makes 32"):
        convert(source, tmp_path / "out", tmp_path / "factor")


def test_refuses_numbers_that_the_dtype_cannot_hold(tmp_path: Path, vae: Path) -> None:
    state = golden_state("latte")
    state["final_layer.linear.bias"] = torch.full_like(state["final_layer.linear.bias"], 1e6)
    source = save_training_output(tmp_path / "x.pt", state)
    with pytest.raises(ValueError, match=r"output\.bias holds numbers that torch\.float16 cannot hold"):
        convert(source, tmp_path / "out", vae, dtype=torch.float16)


def test_reports_stages_and_lets_the_caller_finish_the_folder(tmp_path: Path, vae: Path) -> None:
    source = save_training_output(tmp_path / "x.pt", golden_state("latte"))
    stages: list[str] = []

    def finish(folder: Path, made: Conversion) -> None:
        assert not (tmp_path / "out").exists()
        (folder / "card.json").write_text(made.model_name)

    convert(source, tmp_path / "out", vae, report=stages.append, finish=finish)
    assert (tmp_path / "out" / "card.json").read_text() == "Latte-S/2"
    assert stages[0] == f"reading {source}"
    assert stages[-1] == f"writing {tmp_path / 'out'}"


def test_a_diffusers_folder_gives_the_video_of_diffusers_pipeline(tmp_path: Path, latte: Path) -> None:
    """Prompts, text encoder, guidance, transformer, schedule and VAE together."""
    made = convert_diffusers(latte, tmp_path / "out")
    assert (made.model_name, made.frame_size, made.merged) == ("LatteTransformer3DModel", 64, ())
    checkpoint = load_checkpoint(tmp_path / "out")
    pipeline = LattePipeline(make_tokenizer(), make_text_encoder(), make_vae(), make_latte(), make_scheduler())
    pipeline.set_progress_bar_config(disable=True)
    for prompt, negative in ((PROMPTS[0], "two stars"), ("Two Stars ", PROMPTS[0])):
        video = pipeline(
            prompt,
            negative_prompt=negative,
            num_inference_steps=4,
            guidance_scale=7.5,
            video_length=4,
            latents=start_noise(checkpoint.config, 4, seed=3).transpose(1, 2),
            output_type="np",
            clean_caption=False,
        ).frames[0]
        frames = checkpoint.vae.decode(generate(checkpoint, prompt, negative))
        difference = (torch.tensor(video) * 255 - frames.float()).abs()
        assert frames.float().std() > 5, "a picture of one colour would compare equal too easily"
        assert difference.max() < 1, "more than the rounding of a level"


def generate(checkpoint: Checkpoint, prompt: str, negative: str) -> Tensor:
    condition = checkpoint.condition(prompt)
    generation = Generation(
        seed=3,
        num_inference_steps=4,
        guidance_scale=7.5,
        sampler="ddim",
        num_frames=4,
        condition=condition,
        negative=checkpoint.negative(negative, condition),
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
    convert_diffusers(source, tmp_path / "out")
    ours, theirs = run_latte(load_checkpoint(tmp_path / "out"))
    assert relative_error(ours, theirs) < TOLERANCE


def test_a_text_training_output_replaces_the_transformer(tmp_path: Path, latte: Path) -> None:
    source = save_training_output(tmp_path / "x.pt", golden_state("framedit_h_t2v"))
    made = convert_diffusers(latte, tmp_path / "out", transformer_weights=source)
    assert made.model_name == HYBRID_TEXT_MODEL
    assert made.config.transformer.temporal is Temporal.HYBRID
    tensors = golden_tensors("framedit_h_t2v")
    assert relative_error(run_golden(load_checkpoint(tmp_path / "out"), tensors), tensors["out"]) < TOLERANCE


def test_a_training_output_of_the_folders_own_design_replaces_it_too(tmp_path: Path, latte: Path) -> None:
    source = save_training_output(tmp_path / "x.pt", golden_state("latte_t2v"))
    made = convert_diffusers(latte, tmp_path / "out", transformer_weights=source, model_name="LatteT2V")
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
    made = convert_diffusers(
        latte, tmp_path / "out", transformer_weights=source, lora=tmp_path / "adapter_model.safetensors"
    )
    assert made.merged == tuple(sorted(f"{module}.weight" for module in modules))
    tensors = golden_tensors("framedit_h_t2v")
    assert relative_error(run_golden(load_checkpoint(tmp_path / "out"), tensors), tensors["out"]) < TOLERANCE


def test_takes_the_temporal_decoder_where_there_is_one(tmp_path: Path, latte: Path) -> None:
    source = shutil.copytree(latte, tmp_path / "in")
    make_temporal_vae().save_pretrained(source / "vae_temporal_decoder")
    convert_diffusers(source, tmp_path / "out")
    checkpoint = load_checkpoint(tmp_path / "out")
    assert type(checkpoint.vae.vae).__name__ == "AutoencoderKLTemporalDecoder"


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("transformer/config.json", {"_class_name": "UNet3D"}, "the transformer is a 'UNet3D'; known are LatteT2V"),
        ("transformer/config.json", {"activation_fn": "geglu"}, "activation_fn is 'geglu'"),
        ("transformer/config.json", {"num_layers": 1}, r"unexpected: transformer_blocks\.1\."),
        ("transformer/config.json", {"caption_channels": 8}, r"mis-shaped: caption_projection\.linear_1"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "scaled_linear"}, "beta_schedule is 'scaled_linear'"),
        ("scheduler/scheduler_config.json", {"prediction_type": "v_prediction"}, "prediction_type is 'v_prediction'"),
    ],
)
def test_names_what_is_wrong_in_a_diffusers_folder(
    tmp_path: Path, latte: Path, file: str, change: dict[str, Any], message: str
) -> None:
    source = shutil.copytree(latte, tmp_path / "in")
    (source / file).write_text(json.dumps(json.loads((source / file).read_text()) | change))
    with pytest.raises(ValueError, match=message):
        convert_diffusers(source, tmp_path / "out")


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder", "tokenizer"])
def test_names_the_part_that_a_diffusers_folder_lacks(tmp_path: Path, latte: Path, part: str) -> None:
    source = shutil.copytree(latte, tmp_path / "in", ignore=shutil.ignore_patterns(part))
    with pytest.raises(ValueError, match=f"in/{part}"):
        convert_diffusers(source, tmp_path / "out")


def test_takes_the_schedule_of_the_folder_or_else_the_published_one(tmp_path: Path, latte: Path) -> None:
    source = shutil.copytree(latte, tmp_path / "in")
    DDIMScheduler(beta_start=2e-4, beta_end=1e-2, num_train_timesteps=500).save_pretrained(source / "scheduler")
    assert convert_diffusers(source, tmp_path / "a").config.schedule == NoiseSchedule(500, 2e-4, 1e-2)
    shutil.rmtree(source / "scheduler")
    assert convert_diffusers(source, tmp_path / "b").config.schedule == NoiseSchedule(1000, 1e-4, 2e-2)
