from pathlib import Path

import pytest
from pydantic import ValidationError

from jobs.settings import ClientSettings, Settings, split_list


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REDIS_URL", "FRAMEDIT_REDIS_URL", "FRAMEDIT_DATA_DIR", "FRAMEDIT_ARTIFACTS"):
        monkeypatch.delenv(name, raising=False)


def test_artifacts_are_in_the_data_folder_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().artifacts == Path("data/artifacts")
    monkeypatch.setenv("FRAMEDIT_DATA_DIR", "/srv/framedit")
    assert Settings().artifacts == Path("/srv/framedit/artifacts")
    monkeypatch.setenv("FRAMEDIT_ARTIFACTS", "/mnt/videos")
    assert Settings().artifacts == Path("/mnt/videos")


@pytest.mark.parametrize("name", ["REDIS_URL", "FRAMEDIT_REDIS_URL"])
def test_redis_url_has_two_names(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert Settings().redis_url is None
    monkeypatch.setenv(name, "redis://db:6379/1")
    assert Settings().redis_url == "redis://db:6379/1"


def test_a_value_in_code_needs_no_variable() -> None:
    assert Settings(redis_url="unix:///tmp/x", port=0).redis_url == "unix:///tmp/x"
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Settings(prot=0)


@pytest.mark.parametrize("origins", ["", "*", "https://a.example", "https://a.example, http://localhost:3000"])
def test_origins_are_separated_by_commas(origins: str) -> None:
    assert ", ".join(split_list(Settings(cors_origins=origins).cors_origins)) == origins


@pytest.mark.parametrize(
    "origins", ["a.example", "https://a.example/path", "https://a.example https://b.example", "null"]
)
def test_invalid_origins_are_refused(origins: str) -> None:
    with pytest.raises(ValueError, match="is not an origin: write https://host"):
        Settings(cors_origins=origins)


@pytest.mark.parametrize("secret", ["short", "whsec_" + "A" * 28, "whsec_not base64, whatever its length is"])
def test_weak_webhook_secrets_are_refused_and_not_printed(secret: str) -> None:
    with pytest.raises(ValueError, match="at least 24 characters") as caught:
        Settings(webhook_secret=secret)
    assert secret not in str(caught.value)


def test_secrets_are_not_in_the_text_of_settings() -> None:
    settings = Settings(
        redis_url="redis://:hunter22@db/0", otlp_endpoint="http://a:hunter22@otlp", webhook_secret="hunter22" * 4
    )
    for text in (repr(settings), str(settings), repr(ClientSettings(api_key="fd_hunter22"))):
        assert "hunter22" not in text
