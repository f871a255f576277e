import pytest

from jobs.admission.cost import num_windows, video_cost
from jobs.cards import ModelCard
from models.sampling.windows import Windows
from tests.jobs.making import make_request


@pytest.mark.parametrize("num_frames", [1, 15, 16, 17, 24, 25, 32, 64])
def test_windows_are_counted_as_the_models_cut_them(num_frames: int) -> None:
    assert num_windows(num_frames, 16) == len(Windows.of(num_frames, 16))


def test_guidance_and_windows_multiply_the_rows(text_card: ModelCard) -> None:
    card = text_card.model_copy(update={"max_frames": 64, "trained_frames": 16, "tokens_per_frame": 10})
    plain = video_cost(make_request(guidance_scale=1.0), card)
    assert plain == 20 * 16 * 10
    assert video_cost(make_request(), card) == 2 * plain
    assert video_cost(make_request(num_frames=32), card) == 6 * plain
