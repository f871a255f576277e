import time
from pathlib import Path

import pytest
from redis import Redis

from jobs.cards import ModelCard, announce, find_card, known_models, read_card, withdraw, workers_alive, write_card
from jobs.errors import InvalidCardError


def test_a_card_survives_its_file(tmp_path: Path, class_card: ModelCard) -> None:
    write_card(tmp_path, class_card)
    assert read_card(tmp_path) == class_card


def test_a_folder_without_a_card_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidCardError, match=r"has no card\.json"):
        read_card(tmp_path)


def test_a_card_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "card.json").mkdir()
    with pytest.raises(InvalidCardError, match=r"card\.json cannot be read: Is a directory"):
        read_card(tmp_path)


def test_a_bad_card_names_its_fields(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text('{"id": "x", "fps": 0}')
    with pytest.raises(InvalidCardError, match=r"fps: .*num_inference_steps: Field required"):
        read_card(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"sampler": "magic"},
        {"num_frames": 17},
        {"num_inference_steps": 251},
        {"guidance_scale": 21.0},
        {"conditioning": "class"},
        {"class_names": ["a"]},
        {"id": "../up"},
    ],
)
def test_a_card_that_contradicts_itself_is_refused(text_card: ModelCard, changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes)).replace("conditioning", "class_names")):
        ModelCard.model_validate(text_card.model_dump() | changes)


def test_models_stay_known_and_workers_expire(redis: Redis, text_card: ModelCard, class_card: ModelCard) -> None:
    assert known_models(redis) == {}
    announce(redis, text_card, "w1", ttl_seconds=0.05)
    announce(redis, text_card, "w2", ttl_seconds=60)
    announce(redis, class_card, "w1", ttl_seconds=60)
    deadline = time.monotonic() + 5
    while workers_alive(redis, text_card.id) != {"w2"}:
        assert time.monotonic() < deadline
    withdraw(redis, class_card.id, "w1")
    assert known_models(redis) == {"tiny-class": (class_card, 0), "tiny-text": (text_card, 1)}


def test_the_newest_card_counts(redis: Redis, text_card: ModelCard) -> None:
    announce(redis, text_card, "w1", ttl_seconds=60)
    newer = text_card.model_copy(update={"fps": 12})
    announce(redis, newer, "w2", ttl_seconds=60)
    assert find_card(redis, text_card.id) == newer
    assert find_card(redis, "unheard-of") is None


def test_a_card_with_fields_of_a_newer_release_can_be_read(redis: Redis, text_card: ModelCard) -> None:
    announce(redis, text_card, "w1", ttl_seconds=60)
    raw = redis.hget("framedit:models", text_card.id)
    assert isinstance(raw, bytes)
    redis.hset("framedit:models", text_card.id, raw.replace(b"{", b'{"new_in_2": 1, ', 1))
    assert find_card(redis, text_card.id) == text_card


def test_a_text_model_is_guided_above_one_alone(text_card: ModelCard, class_card: ModelCard) -> None:
    scales = (0.0, 0.5, 1.0, 1.5)
    assert [text_card.is_guided(scale) for scale in scales] == [False, False, False, True]
    assert [class_card.is_guided(scale) for scale in scales] == [True, True, False, True]
