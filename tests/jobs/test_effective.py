from pathlib import Path

import pytest

from jobs.effective import InvalidSettingError, read_settings, secrets_of, shown
from jobs.settings import ClientSettings, Settings


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("REDIS_URL", raising=False)
    path = tmp_path / ".env"
    path.write_text("FRAMEDIT_PORT=1\nFRAMEDIT_HOST=0.0.0.0\nFRAMEDIT_DTYPE=\nCOMPOSE_PROJECT_NAME=mine\n")
    return path


def test_what_goes_before_what(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAMEDIT_PORT", "2")
    monkeypatch.setenv("REDIS_URL", "redis://db")
    found = read_settings(Settings, {"port": None, "device": "cpu"}, env_file)
    settings = found.settings
    assert (settings.port, settings.host, settings.dtype, settings.device) == (2, "0.0.0.0", "auto", "cpu")
    wanted = {"port": "environment", "host": ".env", "dtype": "default", "device": "option", "redis_url": "environment"}
    assert {field: found.sources[field] for field in wanted} == wanted
    assert read_settings(Settings, {"port": 3}, env_file).settings.port == 3


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("FRAMEDIT_PORT", "x", "port is 'x' (environment: FRAMEDIT_PORT): Input should be a valid integer"),
        ("FRAMEDIT_PROT", "1", "there is no setting FRAMEDIT_PROT (environment); did you mean FRAMEDIT_PORT?"),
        ("FRAMEDIT_OTLP_ENDPOINT", "ftp://x", "otlp_endpoint is 'ftp://x' (environment: FRAMEDIT_OTLP_ENDPOINT): "),
        ("FRAMEDIT_QQQQ", "1", "there is no setting FRAMEDIT_QQQQ (environment); `framedit config` lists"),
    ],
)
def test_a_wrong_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettingError) as caught:
        read_settings(Settings, {}, tmp_path / ".env")
    assert message in str(caught.value)


def test_a_wrong_line_of_the_file_is_named(env_file: Path) -> None:
    env_file.write_text("FRAMEDIT_MAX_ATTEMPTS=0\nFRAMEDIT_LOG_LEVEL=loud\n")
    with pytest.raises(InvalidSettingError) as caught:
        read_settings(Settings, {}, env_file)
    assert "max_attempts is '0' (.env: FRAMEDIT_MAX_ATTEMPTS): " in str(caught.value)
    assert "log_level is 'loud' (.env: FRAMEDIT_LOG_LEVEL): " in str(caught.value)


def test_secrets_are_not_shown() -> None:
    url = "rediss://user:p%40ssword@db:6379/0"
    settings = Settings(redis_url=url)
    assert shown(Settings, "redis_url", url) == "rediss://user:***@db:6379/0"
    assert shown(Settings, "redis_url", "redis://db?password=word") == "redis://db?password=***"
    assert shown(ClientSettings, "api_key", "fd_123") == "(hidden)"
    assert secrets_of(settings) == {"p%40ssword", "p@ssword"}
    assert secrets_of(ClientSettings(api_key="fd_123")) == {"fd_123"}


def test_a_secret_can_be_in_a_file(env_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "redis_url"
    secret.write_text("redis://:secret@db\n")
    monkeypatch.setenv("FRAMEDIT_REDIS_URL_FILE", str(secret))
    monkeypatch.setenv("FRAMEDIT_REDIS_URL", "")
    found = read_settings(Settings, {}, env_file)
    assert (found.settings.redis_url, found.sources["redis_url"]) == ("redis://:secret@db", "file")
    monkeypatch.setenv("FRAMEDIT_REDIS_URL", "redis://nearer")
    assert read_settings(Settings, {}, env_file).settings.redis_url == "redis://nearer"


def test_a_secret_whose_file_cannot_be_read_is_named(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAMEDIT_REDIS_URL_FILE", "/nowhere/redis_url")
    with pytest.raises(InvalidSettingError, match=r"FRAMEDIT_REDIS_URL_FILE is '/nowhere/redis_url'.*No such file"):
        read_settings(Settings, {}, env_file)
    monkeypatch.delenv("FRAMEDIT_REDIS_URL_FILE")
    monkeypatch.setenv("FRAMEDIT_REDIS_LRU_FILE", "x")
    with pytest.raises(InvalidSettingError, match="no setting FRAMEDIT_REDIS_LRU_FILE"):
        read_settings(Settings, {}, env_file)
