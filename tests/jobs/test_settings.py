from pathlib import Path

import pytest

from jobs.settings import Settings, split_origins


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REDIS_URL", "FRAMEDIT_REDIS_URL", "FRAMEDIT_DATA_DIR", "FRAMEDIT_ARTIFACTS"):
        monkeypatch.delenv(name, raising=False)


def test_artifacts_lie_in_the_data_folder_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().artifacts == Path("data/artifacts")
    monkeypatch.setenv("FRAMEDIT_DATA_DIR", "/srv/framedit")
    assert Settings().artifacts == Path("/srv/framedit/artifacts")
    monkeypatch.setenv("FRAMEDIT_ARTIFACTS", "/mnt/videos")
    assert Settings().artifacts == Path("/mnt/videos")


@pytest.mark.parametrize("name", ["REDIS_URL", "FRAMEDIT_REDIS_URL"])
def test_redis_may_be_named_without_the_prefix(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert Settings().redis_url is None
    monkeypatch.setenv(name, "redis://db:6379/1")
    assert Settings().redis_url == "redis://db:6379/1"


def test_a_field_may_be_given_in_code() -> None:
    assert Settings(redis_url="unix:///tmp/x", port=0).redis_url == "unix:///tmp/x"


@pytest.mark.parametrize("origins", ["", "*", "https://a.example", "https://a.example, http://localhost:3000"])
def test_origins_are_a_list_with_commas(origins: str) -> None:
    assert ", ".join(split_origins(Settings(cors_origins=origins).cors_origins)) == origins


@pytest.mark.parametrize(
    "origins", ["a.example", "https://a.example/path", "https://a.example https://b.example", "null"]
)
def test_what_is_no_origin_is_refused(origins: str) -> None:
    with pytest.raises(ValueError, match="is no origin; write it as https://host"):
        Settings(cors_origins=origins)
