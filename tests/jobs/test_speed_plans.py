from pathlib import Path

import pytest

from jobs.admission.cost import video_cost, with_rows
from jobs.cards import ModelCard, read_card, write_card
from jobs.errors import InvalidCardError
from jobs.speed_plans import SpeedPlan, explain_refusal, request_plan, write_speed_plans
from jobs.videos.record import Reference, VideoRequest
from tests.jobs.making import make_request
from tests.tiny_checkpoint import tiny_card

ROWS = "2220201020" * 4 + "2221212121"


def make_plan(**changes: object) -> SpeedPlan:
    values: dict[str, object] = {
        "speed": "balanced",
        "sampler": "ddim",
        "rows": ROWS,
        "min_steps": 4,
        "guidance_scale": 3.0,
        "rows_share": 0.6,
        "psnr_db": 40.0,
        "ssim": 0.99,
        "num_videos": 4,
        "rival_steps": 30,
        "rival_psnr_db": 35.0,
    }
    return SpeedPlan.model_validate(values | changes)


def make_card() -> ModelCard:
    return tiny_card().model_copy(update={"speed_plans": [make_plan()]})


def plan_request(**changes: object) -> VideoRequest:
    values = {"sampler": "ddim", "num_frames": 4, "guidance_scale": 2.0, "speed": "balanced"}
    return make_request(**values | changes)


def test_at_the_steps_of_the_calibration_a_plan_is_the_calibrated_one() -> None:
    assert make_plan().rows_of(len(ROWS)) == ROWS


@pytest.mark.parametrize("num_steps", [2, 3, 7, 20, 49, 51, 100, 250, 1000])
def test_a_plan_fits_any_number_of_steps(num_steps: int) -> None:
    rows = make_plan().rows_of(num_steps)
    assert (len(rows), rows[0]) == (num_steps, "2")
    assert rows[-1] != "0"
    if num_steps >= 20:
        computed = num_steps - rows.count("0")
        assert computed / num_steps == pytest.approx(1 - ROWS.count("0") / len(ROWS), abs=0.06)


def test_an_edit_does_the_last_steps_and_begins_with_a_full_one() -> None:
    rows = request_plan(make_plan(), 50, 48, is_guided=True)
    assert rows == "2" + ROWS[3:]
    assert set(request_plan(make_plan(), 50, 48, is_guided=False)) == {"0", "1"}


def test_cost_and_rows_are_those_of_the_plan() -> None:
    card = make_card()
    exact = with_rows(plan_request(speed="exact", num_inference_steps=50), card)
    request = with_rows(plan_request(num_inference_steps=50), card)
    rows = sum(map(int, ROWS))
    assert (exact.rows_computed, exact.rows_saved, exact.speed_plan) == (100, 0, None)
    assert (request.rows_computed, request.rows_saved, request.speed_plan) == (rows, 100 - rows, ROWS)
    assert video_cost(request, card) * 100 == video_cost(exact, card) * rows


def test_the_remaining_share_of_a_plan_counts_rows() -> None:
    request = with_rows(plan_request(num_inference_steps=50), make_card())
    assert request.remaining_share(0) == 1
    assert request.remaining_share(49) == 1 / sum(map(int, ROWS))
    assert request.remaining_share(50) == 0


def test_without_guidance_a_window_has_one_row() -> None:
    request = with_rows(plan_request(num_inference_steps=50, guidance_scale=1.0), make_card())
    assert request.rows_computed == 50 - ROWS.count("0")
    assert request.rows_saved == ROWS.count("0")


def test_an_edit_costs_the_steps_that_it_does() -> None:
    edit = Reference(use="edit", num_frames=4, strength=0.5)
    request = with_rows(plan_request(num_inference_steps=50, reference=edit), make_card())
    assert request.speed_plan is not None
    assert len(request.speed_plan) == request.num_steps == 25


def test_a_plan_that_the_card_lost_stays_with_its_request() -> None:
    request = with_rows(plan_request(num_inference_steps=50), make_card())
    assert with_rows(request, tiny_card()) == request


def test_refusals_say_what_is_allowed() -> None:
    def explain(speed: str, sampler: str, num_steps: int = 50) -> str | None:
        return explain_refusal("tiny", [make_plan()], speed, sampler, num_steps)  # type: ignore[arg-type]

    assert explain("exact", "unipc") is None
    assert explain("balanced", "ddim") is None
    assert "tiny allows exact, balanced with the sampler 'ddim'" in str(explain("fast", "ddim"))
    assert "it offers 'balanced' with the samplers ddim" in str(explain("balanced", "unipc"))
    assert "`framedit calibrate tiny`" in str(explain("fast", "ddim"))
    assert "at least 4 num_inference_steps, and this request has 3" in str(explain("balanced", "ddim", 3))


def test_the_card_of_a_folder_has_its_plans(tmp_path: Path) -> None:
    write_card(tmp_path, make_card())
    assert read_card(tmp_path).speed_plans == []
    write_speed_plans(tmp_path, [make_plan()])
    assert read_card(tmp_path) == make_card()
    (tmp_path / "speed_plans.json").write_text('[{"speed": "warp"}]')
    with pytest.raises(InvalidCardError, match=r"speed_plans\.json is not a list of speed plans: .*speed"):
        read_card(tmp_path)
