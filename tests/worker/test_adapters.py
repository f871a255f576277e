"""Adapters in a whole worker: videos with and without, and folders that come and go while it runs."""

import shutil
from pathlib import Path

import pytest
from redis import Redis

from jobs.admission.worker_load import read_loads
from jobs.cards import find_card
from jobs.videos.record import AdapterUse
from tests.models.adapters.adapter_folders import make_adapter_folder
from tests.mp4 import decode_mp4
from tests.tiny_checkpoint import tiny_config
from tests.worker.conftest import Bench, wait_for
from worker.dispatch import dispatcher
from worker.loading.adapter_watch import AdapterWatch

MAX_BYTES = 1 << 20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "adapters"


def uses(*names: str) -> list[AdapterUse]:
    return [AdapterUse(name=name, scale=1.0) for name in names]


def test_videos_with_different_adapters_are_made_together(bench: Bench, root: Path) -> None:
    for seed, name in enumerate(("first", "second")):
        make_adapter_folder(root / name, tiny_config(), seed=seed)
    records = [bench.queue(seed=5, adapters=uses(*names)) for names in ((), ("first",), ("first", "second"), ())]
    bench.run_until_empty(adapters=root)
    frames = []
    for record in records:
        assert bench.context.store.get(record.id).status == "completed"
        frames.append(decode_mp4(bench.context.artifacts.path(record.id)).frames)
    without, first, both, again = frames
    assert (without == again).all()
    assert (first != without).any()
    assert (both != first).any()


def test_a_video_whose_adapter_has_vanished_fails_alone(bench: Bench, root: Path) -> None:
    make_adapter_folder(root / "there", tiny_config())
    broken = make_adapter_folder(root / "broken", tiny_config())
    (broken / "adapter_model.safetensors").write_bytes(b"nothing")
    gone, damaged = bench.queue(adapters=uses("gone")), bench.queue(adapters=uses("broken"))
    kept = [bench.queue(adapters=uses("there")), bench.queue()]
    bench.run_until_empty(adapters=root)
    for record, name in ((gone, "gone"), (damaged, "broken")):
        after = bench.context.store.get(record.id)
        assert (after.status, after.attempts) == ("failed", 1)
        assert after.error is not None
        assert after.error.code == "adapter_unavailable"
        assert f"the adapter {name!r} of tiny" in after.error.message
        assert str(root) not in after.error.message
    assert all(bench.context.store.get(record.id).status == "completed" for record in kept)


def test_a_running_worker_announces_what_its_folder_holds(
    bench: Bench, root: Path, redis: Redis, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "BEAT_SECONDS", 0.1)  # it reads its folder with each

    def announced() -> list[str]:
        card = find_card(redis, "tiny")
        return [] if card is None else [adapter.name for adapter in card.adapters]

    watch = AdapterWatch(root, checkpoints, MAX_BYTES)
    make_adapter_folder(root / "first", tiny_config())
    watch.poll(["tiny"], is_start=True)
    with bench.working(adapter_watch=watch, adapters=root):
        wait_for(lambda: announced() == ["first"])
        make_adapter_folder(root / "second", tiny_config(), seed=1)
        (root / "empty").mkdir()
        wait_for(lambda: announced() == ["first", "second"])
        wait_for(lambda: "empty" in read_loads(redis)["w1"].refused_adapters)
        record = bench.queue(adapters=uses("second"))
        bench.wait_until(record, "completed")
        shutil.rmtree(root / "second")
        wait_for(lambda: announced() == ["first"])
        bench.wait_until(bench.queue(adapters=uses("second")), "failed")
        bench.wait_until(bench.queue(adapters=uses("first")), "completed")
