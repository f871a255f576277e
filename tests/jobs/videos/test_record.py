import pytest

from jobs.videos.record import MAX_SEED, is_video_id, new_records, new_seed, new_video_id
from tests.jobs.making import make_request


def test_ids_sort_by_age() -> None:
    ids = [new_video_id(seconds) for seconds in (1.0, 1_700_000_000.0, 1_700_000_000.000001, 4_000_000_000.0)]
    assert ids == sorted(ids)
    assert all(is_video_id(video_id) for video_id in ids)


def test_ids_of_videos_asked_for_at_once_sort_by_seed() -> None:
    for created_at in (1_700_000_000 + tenth / 10 for tenth in range(100)):
        ids = [record.id for record in new_records(make_request(), created_at, count=10)]
        assert ids == sorted(ids)


@pytest.mark.parametrize("text", ["", "video_", "video_../../etc", "video_" + "g" * 32, "video_" + "0" * 32 + "\n"])
def test_invalid_ids(text: str) -> None:
    assert not is_video_id(text)


def test_seeds_fit_a_signed_32_bit_number() -> None:
    seeds = {new_seed() for _ in range(100)}
    assert len(seeds) > 90
    assert all(0 <= seed <= MAX_SEED for seed in seeds)
