import itertools
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from training import loop
from training.loop import LoopSettings, learning_rate_at, train

SETTINGS = LoopSettings(Path(), steps=12, learning_rate=0.05, warmup_steps=2, save_every=4, log_every=3)


class InterruptionError(Exception):
    pass


def fit(settings: LoopSettings, interrupt_at: int | None = None) -> nn.Linear:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)

    def loss_of_step(step: int) -> dict[str, Tensor]:
        if step == interrupt_at:
            raise InterruptionError
        inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        error = model(inputs) - inputs.sum(dim=1, keepdim=True)
        return {"loss": error.square().mean(), "bias": error.mean()}

    train(settings, model, loss_of_step)
    return model


def log_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_an_interrupted_stage_goes_on_to_the_same_result(tmp_path: Path) -> None:
    whole = fit(replace(SETTINGS, out=tmp_path / "whole"))
    with pytest.raises(InterruptionError):
        fit(replace(SETTINGS, out=tmp_path / "parts"), interrupt_at=7)
    resumed = fit(replace(SETTINGS, out=tmp_path / "parts"))
    assert torch.equal(whole.weight, resumed.weight)
    assert torch.equal(whole.bias, resumed.bias)
    assert log_of(tmp_path / "whole") == log_of(tmp_path / "parts")


def test_a_finished_stage_is_not_trained_again(tmp_path: Path) -> None:
    settings = replace(SETTINGS, out=tmp_path)
    first = fit(settings)
    again = fit(settings, interrupt_at=0)
    assert torch.equal(first.weight, again.weight)


def test_the_time_may_end_first_with_the_whole_fall_of_the_learning_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = itertools.count()
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    fit(replace(SETTINGS, out=tmp_path, steps=1000, seconds=7, log_every=1))
    by_time = log_of(tmp_path)
    fit(replace(SETTINGS, out=tmp_path / "steps", steps=7, log_every=1))
    assert by_time == log_of(tmp_path / "steps")


def test_no_steps_and_no_time_train_nothing(tmp_path: Path) -> None:
    fit(replace(SETTINGS, out=tmp_path, steps=0), interrupt_at=0)
    fit(replace(SETTINGS, out=tmp_path, seconds=0), interrupt_at=0)


def test_a_state_without_a_time_is_gone_on_from(tmp_path: Path) -> None:
    settings = replace(SETTINGS, out=tmp_path)
    fit(settings)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    del state["seconds"]
    torch.save(state, tmp_path / "state.pt")
    fit(settings, interrupt_at=0)


def test_the_log_holds_every_loss_and_falls(tmp_path: Path) -> None:
    fit(replace(SETTINGS, out=tmp_path, steps=60))
    log = log_of(tmp_path)
    assert [entry["step"] for entry in log] == list(range(3, 61, 3))
    assert set(log[0]) == {"step", "learning_rate", "loss", "bias"}
    assert log[-1]["loss"] < 0.5 * log[0]["loss"]


def test_the_learning_rate_rises_then_falls() -> None:
    rates = [learning_rate_at(SETTINGS, step, step / 12) for step in range(12)]
    assert rates[0] < rates[1] > rates[6] > rates[11] > 0
