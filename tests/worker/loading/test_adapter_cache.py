import shutil
from pathlib import Path

import pytest
import torch

from jobs.videos.record import AdapterUse
from tests.models.adapters.adapter_folders import make_adapter_folder
from tests.worker.engines import make_models
from worker.errors import AdapterUnavailableError
from worker.loading.adapter_cache import AdapterCache

TEXT = make_models("hybrid")["text"]
CLASS = make_models("hybrid")["class"]
CONFIG = TEXT.checkpoint.config


def use(name: str, scale: float = 1.0) -> AdapterUse:
    return AdapterUse(name=name, scale=scale)


def test_an_adapter_is_read_once_and_again_after_a_change(tmp_path: Path) -> None:
    cache = AdapterCache(tmp_path, 1 << 20)
    make_adapter_folder(tmp_path / "one", CONFIG)
    (first,) = cache.load([use("one", 0.5)], TEXT)
    assert first.scale == 0.5
    assert cache.load([use("one")], TEXT)[0].adapter is first.adapter
    make_adapter_folder(tmp_path / "one", CONFIG, seed=1)
    (changed,) = cache.load([use("one", 0.5)], TEXT)
    assert changed.fingerprint != first.fingerprint
    assert cache.num_bytes == changed.adapter.num_bytes, "the outdated one is gone"


def test_the_least_recently_used_goes_when_memory_is_short(tmp_path: Path) -> None:
    for name in "abc":
        make_adapter_folder(tmp_path / name, CONFIG)
    size = AdapterCache(tmp_path, 1 << 20).load([use("a")], TEXT)[0].adapter.num_bytes
    cache = AdapterCache(tmp_path, int(2.5 * size))
    first = cache.load([use("a"), use("b")], TEXT)
    cache.load([use("a")], TEXT)
    cache.load([use("c")], TEXT)  # in place of b
    assert cache.num_bytes == 2 * size
    again = cache.load([use("a"), use("b")], TEXT)
    assert again[0].adapter is first[0].adapter
    assert again[1].adapter is not first[1].adapter


def test_an_adapter_that_vanished_fails_with_its_name(tmp_path: Path) -> None:
    cache = AdapterCache(tmp_path, 1 << 20)
    make_adapter_folder(tmp_path / "one", CONFIG)
    cache.load([use("one")], TEXT)
    shutil.rmtree(tmp_path / "one")
    with pytest.raises(AdapterUnavailableError, match="the adapter 'one' of text cannot be used: it was removed"):
        cache.load([use("one")], TEXT)


def test_an_adapter_that_does_not_fit_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_adapter_folder(tmp_path / "one", CONFIG)
    with pytest.raises(AdapterUnavailableError):
        AdapterCache(tmp_path, 1 << 20).load([use("one")], CLASS)
    assert "unknown: " in caplog.text
    with pytest.raises(AdapterUnavailableError):
        AdapterCache(tmp_path, 10).load([use("one")], TEXT)
    assert "at most 10 are allowed" in caplog.text


def test_adapters_have_the_number_format_of_the_model(tmp_path: Path) -> None:
    make_adapter_folder(tmp_path / "one", CONFIG)
    cache = AdapterCache(tmp_path, 1 << 20)
    (scaled,) = cache.load([use("one")], TEXT)
    assert {part.down.dtype for parts in scaled.adapter.updates.values() for part in parts} == {torch.float32}


@pytest.mark.parametrize("name", ["../one", "/etc", "", "a/b", ".hidden", "a\n", "x" * 101])
def test_a_record_holds_no_path(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        use(name)
