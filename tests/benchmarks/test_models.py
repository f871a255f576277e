"""The benchmark of the models: both sides compute the same for every design, and its results can be read."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import models as benchmark
from models.conditioning import Condition
from models.config import TransformerConfig
from models.registry import published_model


def shrink(config: TransformerConfig) -> TransformerConfig:
    matrix = config.matrix and replace(config.matrix, column_heads=4, row_heads=2, qk_tokens=8, v_tokens=32)
    return replace(config, depth=4, width=32, heads=2, latent_size=8, num_frames=3, matrix=matrix)


@pytest.mark.parametrize("design", benchmark.DESIGNS)
def test_both_sides_compute_the_same(design: str) -> None:
    name = benchmark.DESIGNS[design].format(size="S")
    model = published_model(name, num_frames=3, image_size=64, num_classes=7)
    model = replace(model, config=shrink(model.config))
    ours, published = benchmark.build_sides(model, "cpu")
    latents, timesteps, labels = torch.randn(2, 3, 4, 8, 8), torch.tensor([3, 900]), torch.tensor([7, 0])
    with torch.inference_mode():
        expected = published(latents, timesteps, labels)
        actual = ours(latents, timesteps, Condition(labels=labels))
    assert benchmark.relative_error(actual, expected) < 1e-5
    assert expected.std() > 0.1


def test_results_name_the_sides_and_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "NUM_FRAMES", 2)
    monkeypatch.setattr(benchmark, "IMAGE_SIZE", 64)
    output = tmp_path / "new" / "results.json"
    threads = torch.get_num_threads()
    try:
        case = ["--design", "local", "--batch", "1", "--depth", "2"]
        benchmark.main([*case, "--seconds", "0", "--threads", "1", "--output", str(output)])
    finally:
        torch.set_num_threads(threads)
    results = json.loads(output.read_text())
    [row] = results["rows"]
    assert (row["model"], row["batch"], row["dtype"], row["rounds"]) == ("Latte-S/2", 1, "float32", 2)
    assert row["ours_seconds"] > 0
    assert row["published_seconds"] > 0
    assert row["relative_error"] < 1e-4
    assert results["machine"]["torch"] == torch.__version__
    assert results["machine"]["threads"] == 1


def test_sides_that_differ_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "relative_error", lambda actual, expected: 0.5)
    monkeypatch.setattr(benchmark, "IMAGE_SIZE", 64)
    monkeypatch.setattr(benchmark, "NUM_FRAMES", 2)
    with pytest.raises(RuntimeError, match="Latte-S/2: the sides differ"):
        benchmark.compare("Latte-S/2", depth=2, dtype="float32", batch=1, budget_seconds=0, device="cpu")
