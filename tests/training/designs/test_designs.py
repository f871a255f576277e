import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.checkpoint.load import load_checkpoint
from models.conditioning import Condition
from models.generate import Generation, denoise
from training.designs import __main__ as command
from training.designs import text
from training.designs.designs import DESIGNS
from training.designs.generate import evaluation_scenes, generate_latents
from training.designs.latent_files import load_latents, save_latents
from training.designs.package import GUIDANCE_SCALE, SAMPLER
from training.designs.train import Training, TrainingSettings
from training.designs.videos import FastVideos
from training.world.fast.prompts import canonical
from training.world.fast.scenes import draw_fast_scenes

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def small_models() -> Iterator[None]:
    """Each design with one pair of blocks of width 32, and a narrow VAE."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.designs.videos.VAE_CHANNELS", (8, 8, 16, 16))
        for name, design in DESIGNS.items():
            matrix = design.config.matrix and replace(design.config.matrix, column_heads=2, row_heads=2)
            small = replace(design.config, depth=2, width=32, heads=2, matrix=matrix)
            patch.setitem(DESIGNS, name, replace(design, config=small))
        yield


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of one quick call of the command."""
    folder = tmp_path_factory.mktemp("designs")
    arguments = ["--work", str(folder), "--out", str(folder / "out"), "--device", "cpu", "--quick"]
    command.main([*arguments, "--train-seconds", "0", "--videos", "2", "--workers", "1", "--last"])
    return folder


def test_the_command_makes_and_measures_four_checkpoints(work: Path) -> None:
    results = json.loads((work / "results" / "results.json").read_text())
    assert set(results) == {"rendered", "rendered, through the VAE", *DESIGNS}
    truth = results["rendered"]["all"]
    assert truth["all attributes"]["value"] == 1
    assert truth["median position error in pixels"]["value"] < 0.5
    passes = json.loads((work / "results" / "passes.json").read_text())
    assert {(each["design"], each["frames"]) for each in passes} == {(name, n) for name in DESIGNS for n in (4, 8)}
    assert all(each["milliseconds"] > 0 for each in passes)
    for folder in (work / "checkpoints").iterdir():
        assert (folder / "model.safetensors").stat().st_size < 10e6
    assert len(list((work / "out").iterdir())) <= 8


def test_a_batch_of_videos_is_what_the_plain_sampler_makes(work: Path) -> None:
    [folder] = (work / "checkpoints").glob("demo-h-*")
    scenes = evaluation_scenes(2)
    latents = generate_latents(folder, scenes, CPU, num_steps=2)
    checkpoint = load_checkpoint(folder)
    for seed, scene in enumerate(scenes.words()):
        condition = checkpoint.condition(canonical(scene))
        generation = Generation(
            seed=seed,
            num_inference_steps=2,
            guidance_scale=GUIDANCE_SCALE,
            sampler=SAMPLER,
            num_frames=32,
            condition=condition,
            negative=checkpoint.negative("", condition),
        )
        expected = denoise(checkpoint.transformer, checkpoint.schedule, generation)
        assert torch.allclose(latents[seed], expected[0], rtol=1e-4, atol=1e-2)


def training_of(out: Path, seconds: float = 0.0) -> Training:
    return Training(TrainingSettings(out, seconds, last=False, batch=2, log_every=1), CPU, compiled=False)


def no_prompt(indices: torch.Tensor, dropped: torch.Tensor) -> Condition:
    return Condition(text=torch.ones(len(indices), 3, text.WIDTH))


def test_all_designs_see_the_same_number_of_samples_and_go_on_from_where_they_stopped(tmp_path: Path) -> None:
    videos = FastVideos(torch.randn(4, 32, 8, 8, 8).half(), draw_fast_scenes(4, seed=0))
    first = training_of(tmp_path)
    first.run(videos, no_prompt)
    assert first.step == 1
    logs = {name: (tmp_path / f"{name}.jsonl").read_text().splitlines() for name in DESIGNS}
    assert {json.loads(lines[-1])["samples"] for lines in logs.values()} == {2}
    second = training_of(tmp_path)
    assert second.step == 1
    for before, after in zip(first.trainees, second.trainees, strict=True):
        for name, tensor in before.model.state_dict().items():
            assert torch.equal(tensor, after.model.state_dict()[name])
    first.export(tmp_path / "out")
    third = training_of(tmp_path / "elsewhere")
    third.start_from(tmp_path / "out")
    assert third.step == 1
    assert torch.allclose(third.trainees[0].model.output.weight, first.trainees[0].model.output.weight, atol=1e-4)


def test_another_machine_goes_on_with_the_same_text_encoder_and_vae(work: Path, tmp_path: Path) -> None:
    command.unpack(work / "out", tmp_path / "work")
    for name in ("text/text_encoder/model.safetensors", "text/tokenizer/tokenizer.json", "text/report.json"):
        assert (tmp_path / "work" / name).read_bytes() == (work / name).read_bytes()
    vae = "vae/vae/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "work" / vae).read_bytes() == (work / vae).read_bytes()
    assert not (tmp_path / "work" / "state" / "state.pt").exists(), "the weights come apart"


def test_small_latent_files_keep_the_latents(tmp_path: Path) -> None:
    latents = torch.randn(2, 4, 8, 8, 8)
    save_latents({"h": latents}, tmp_path / "latents.npz")
    assert np.abs((load_latents(tmp_path / "latents.npz")["h"] - latents).numpy()).max() <= 1 / 48 + 1e-6
