"""`python -m training`: the whole recipe, stage after stage; stages that are done are passed over, to go on later."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.demos import DEMOS
from training.evaluation import evaluate
from training.stages import diffusion, latents, package, text_encoder, vae


@dataclass(frozen=True)
class Stage:
    """One step of the recipe: done once `result` exists."""

    name: str
    run: Callable[[Sequence[str]], None]
    arguments: list[str]
    result: Path


def stages(build: Path, checkpoints: Path, device: str, quick: bool) -> list[Stage]:
    """The recipe in order. `quick` does a little of everything: it shows that the stages fit, and trains nothing."""
    few = ["--steps", "2", "--batch", "4"] if quick else []
    on = ["--device", device]
    text, vae_out, videos = build / "text", build / "vae", build / "latents.safetensors"
    trained = [
        Stage("text encoder", text_encoder.main, ["--out", str(text), *few, *on], text / "report.json"),
        Stage("VAE", vae.main, ["--out", str(vae_out), *few, *on], vae_out / "report.json"),
        Stage(
            "latents",
            latents.main,
            ["--vae", str(vae_out / "vae"), "--out", str(videos), *(["--videos", "32"] if quick else []), *on],
            videos,
        ),
    ]
    for key, demo in DEMOS.items():
        weights, folder = build / demo.name / "model.safetensors", checkpoints / demo.name
        sources = ["--latents", str(videos), "--text", str(text), "--out", str(build / demo.name)]
        parts = ["--weights", str(weights), "--vae", str(vae_out / "vae"), "--text", str(text), "--output", str(folder)]
        report = build / f"evaluate-{demo.name}.json"
        sample = ["--number", "2", "--steps", "2"] if quick else []
        trained += [
            Stage(f"{demo.name}: diffusion", diffusion.main, [key, *sources, *few, *on], weights),
            Stage(f"{demo.name}: package", package.main, [key, *parts], folder),
            Stage(f"{demo.name}: evaluation", evaluate.main, [str(folder), "--out", str(report), *sample, *on], report),
        ]
    return trained


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("--build", type=Path, default=Path("build/training"), help="where the stages keep their work")
    parser.add_argument(
        "--checkpoints", type=Path, default=Path("build/checkpoints"), help="where the demos are written"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto: CUDA where there is one")
    parser.add_argument("--quick", action="store_true", help="a few steps of everything, to see that it runs")
    options = parser.parse_args(arguments)
    for stage in stages(options.build, options.checkpoints, options.device, options.quick):
        if stage.result.exists():
            print(f"{stage.name}: done already ({stage.result})", flush=True)
        else:
            print(f"{stage.name}: {' '.join(stage.arguments)}", flush=True)
            stage.run(stage.arguments)


if __name__ == "__main__":
    main()
