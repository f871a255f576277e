import torch

from models.sampling.samplers import build_table
from models.sampling.schedule import NoiseSchedule
from models.sampling.speed_plan import check_plan
from tests.worker.engines import make_generation, make_models
from worker.calibration.calibrate import Calibration
from worker.calibration.quality import MAX_PSNR_DB, psnr_db, ssim
from worker.calibration.search import choose_steps, find_candidates

TABLE = build_table("ddim", 20, NoiseSchedule())


def test_equal_videos_have_the_highest_scores() -> None:
    frames = torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8)
    assert psnr_db(frames, frames) == MAX_PSNR_DB
    assert ssim(frames, frames) == 1


def test_psnr_is_that_of_the_definition() -> None:
    black = torch.zeros(2, 16, 16, 3, dtype=torch.uint8)
    assert psnr_db(black + 255, black) == 0
    assert round(psnr_db(black + 1, black), 2) == 48.13
    assert ssim(black + 255, black) < 0.01


def test_the_steps_that_others_predict_are_left_out() -> None:
    def error_of(step: int, computed: tuple[int, ...]) -> float:
        return 100.0 if step in (7, 12) else 0.01 * (step - computed[-1])

    chosen = choose_steps(20, 8, error_of)
    assert len(chosen) == 8
    assert {0, 1, 2, 7, 12, 19} <= set(chosen)


def test_candidates_are_plans_within_the_budget() -> None:
    predictions = torch.randn(2, 19, 1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    candidates = dict(find_candidates(TABLE, predictions, 24))
    assert list(candidates) == [
        "guidance reuse",
        "even step skipping",
        "step skipping",
        "step skipping and guidance reuse",
    ]
    for plan in candidates.values():
        check_plan(plan, TABLE, guided=True)
        assert 20 <= sum(map(int, plan)) <= 24


def test_samplers_that_remember_too_much_have_guidance_reuse_alone() -> None:
    table = build_table("unipc", 20, NoiseSchedule())
    assert [family for family, _ in find_candidates(table, torch.randn(1, 19, 1, 2, 4, 4), 24)] == ["guidance reuse"]
    assert not list(find_candidates(table, torch.randn(1, 19, 1, 2, 4, 4), 18))


def test_plans_are_kept_when_they_are_better_than_fewer_steps() -> None:
    model = make_models("local")["class"]
    examples = [make_generation("class", sampler="ddim", num_inference_steps=12, seed=seed) for seed in range(2)]
    lines: list[str] = []
    calibration = Calibration(model, examples, lines.append)
    plans = calibration.run()
    assert list(calibration.measurements) == ["balanced", "fast"]
    for speed, (rival, *found) in calibration.measurements.items():
        best = max(found, key=lambda measurement: measurement.psnr_db)
        kept = [plan for plan in plans if plan.speed == speed]
        assert [plan.rows for plan in kept] == [best.rows] * (
            best.psnr_db > max(rival.psnr_db, 30 if speed == "balanced" else 27)
        )
        assert all(plan.psnr_db > plan.rival_psnr_db for plan in kept)
    assert any("fewer steps" in line for line in lines)
