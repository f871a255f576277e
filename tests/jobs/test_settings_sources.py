from pathlib import Path

import pytest

from jobs.settings import ClientSettings, Settings
from jobs.settings_secrets import secrets_of, shown
from jobs.settings_sources import InvalidSettingError, read_settings


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("REDIS_URL", raising=False)
    path = tmp_path / ".env"
    path.write_text("FRAMEDIT_PORT=1\nFRAMEDIT_HOST=0.0.0.0\nFRAMEDIT_DTYPE=\nCOMPOSE_PROJECT_NAME=mine\n")
    return path


def test_each_field_comes_from_the_first_source_that_has_it(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAMEDIT_PORT", "2")
    monkeypatch.setenv("REDIS_URL", "redis://db")
    found = read_settings(Settings, {"port": None, "device": "cpu"}, env_file)
    settings = found.settings
    assert (settings.port, settings.host, settings.dtype, settings.device) == (2, "0.0.0.0", "auto", "cpu")
    expected = {
        "port": "environment",
        "host": ".env",
        "dtype": "default",
        "device": "option",
        "redis_url": "environment",
    }
    assert {field: found.origins[field] for field in expected} == expected
    assert read_settings(Settings, {"port": 3}, env_file).settings.port == 3


@pytest.mark.parametrize("option", [None, "redis://option"])
@pytest.mark.parametrize("variable", [None, "REDIS_URL", "FRAMEDIT_REDIS_URL"])
@pytest.mark.parametrize("file", [False, True])
@pytest.mark.parametrize("line", [None, "REDIS_URL", "FRAMEDIT_REDIS_URL"])
def test_the_order_of_sources_holds_for_every_name_of_a_field(
    env_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: str | None,
    variable: str | None,
    file: bool,
    line: str | None,
) -> None:
    env_file.write_text(f"{line}=redis://line" if line else "")
    if variable:
        monkeypatch.setenv(variable, "redis://variable")
    if file:
        secret = env_file.with_name("secret")
        secret.write_text("redis://file\n")
        monkeypatch.setenv("FRAMEDIT_REDIS_URL_FILE", str(secret))
    values = {
        "option": option,
        "environment": variable and "redis://variable",
        "file": "redis://file" if file else None,
        ".env": line and "redis://line",
    }
    expected = next(((origin, value) for origin, value in values.items() if value), ("default", None))
    found = read_settings(Settings, {"redis_url": option}, env_file)
    assert (found.origins["redis_url"], found.settings.redis_url) == expected


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("FRAMEDIT_PORT", "x", "port is 'x' (environment: FRAMEDIT_PORT): Input should be a valid integer"),
        ("FRAMEDIT_PROT", "1", "there is no setting FRAMEDIT_PROT (environment); did you mean FRAMEDIT_PORT?"),
        ("FRAMEDIT_OTLP_ENDPOINT", "ftp://x", "otlp_endpoint is 'ftp://x' (environment: FRAMEDIT_OTLP_ENDPOINT): "),
        ("FRAMEDIT_WEBHOOK_SECRET", "short", "webhook_secret is '(hidden)' (environment: FRAMEDIT_WEBHOOK_SECRET): "),
        ("FRAMEDIT_QQQQ", "1", "there is no setting FRAMEDIT_QQQQ (environment); `framedit config` lists all"),
    ],
)
def test_an_invalid_variable_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettingError) as caught:
        read_settings(Settings, {}, tmp_path / ".env")
    assert message in str(caught.value)


def test_invalid_lines_of_the_file_are_named(env_file: Path) -> None:
    env_file.write_text("FRAMEDIT_MAX_ATTEMPTS=0\nFRAMEDIT_LOG_LEVEL=loud\n")
    with pytest.raises(InvalidSettingError) as caught:
        read_settings(Settings, {}, env_file)
    assert "max_attempts is '0' (.env: FRAMEDIT_MAX_ATTEMPTS): " in str(caught.value)
    assert "log_level is 'loud' (.env: FRAMEDIT_LOG_LEVEL): " in str(caught.value)


def test_an_invalid_option_is_named(env_file: Path) -> None:
    with pytest.raises(InvalidSettingError, match="port is '70000': Input should be less than"):
        read_settings(Settings, {"port": 70000}, env_file)


def test_secrets_are_not_shown() -> None:
    url = "rediss://user:p%40ssword@db:6379/0"
    settings = Settings(redis_url=url)
    assert shown(Settings, "redis_url", url) == "rediss://user:***@db:6379/0"
    assert shown(Settings, "redis_url", "redis://db?password=word") == "redis://db?password=***"
    assert shown(ClientSettings, "api_key", "fd_123") == "(hidden)"
    assert secrets_of(settings) == {"p%40ssword", "p@ssword"}
    assert secrets_of(ClientSettings(api_key="fd_123")) == {"fd_123"}


def test_an_empty_variable_does_not_hide_a_file(
    env_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "redis_url"
    secret.write_text("redis://:secret@db\n")
    monkeypatch.setenv("FRAMEDIT_REDIS_URL_FILE", str(secret))
    monkeypatch.setenv("FRAMEDIT_REDIS_URL", "")
    found = read_settings(Settings, {}, env_file)
    assert (found.settings.redis_url, found.origins["redis_url"]) == ("redis://:secret@db", "file")


def test_a_secret_file_that_cannot_be_read_is_named(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAMEDIT_REDIS_URL_FILE", "/nowhere/redis_url")
    with pytest.raises(InvalidSettingError, match=r"FRAMEDIT_REDIS_URL_FILE is '/nowhere/redis_url'.*No such file"):
        read_settings(Settings, {}, env_file)
    monkeypatch.delenv("FRAMEDIT_REDIS_URL_FILE")
    monkeypatch.setenv("FRAMEDIT_REDIS_LRU_FILE", "x")
    with pytest.raises(InvalidSettingError, match="no setting FRAMEDIT_REDIS_LRU_FILE"):
        read_settings(Settings, {}, env_file)


def test_a_deprecated_name_works_and_is_reported(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings(Settings, {}, env_file).warnings == ()
    monkeypatch.setenv("FRAMEDIT_MAX_SEATS", "3")
    found = read_settings(Settings, {}, env_file)
    assert (found.settings.max_slots, found.origins["max_slots"]) == (3, "environment")
    assert found.warnings == ("FRAMEDIT_MAX_SEATS is deprecated: use FRAMEDIT_MAX_SLOTS",)
    monkeypatch.setenv("FRAMEDIT_MAX_SLOTS", "5")
    found = read_settings(Settings, {}, env_file)
    assert (found.settings.max_slots, found.warnings) == (5, ())
