"""The settings in force: options before the environment, the environment before `.env`, `.env` before the defaults.

A variable `<NAME>_FILE` in the environment names a file that holds the value of `<NAME>`.
"""

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import unquote, urlsplit

from dotenv import dotenv_values
from pydantic import AliasChoices, ValidationError
from pydantic_settings import BaseSettings

from jobs.errors import FrameditError
from jobs.settings import ClientSettings, Settings

Source = Literal["option", "environment", "file", ".env", "default"]
SettingsType = TypeVar("SettingsType", bound=BaseSettings)

ENV_FILE = Path(".env")
PREFIX = "FRAMEDIT_"
FILE_SUFFIX = "_FILE"


class InvalidSettingError(FrameditError, ValueError):
    """A setting that is not known or has no such value; says which and where it was found."""

    code = "invalid_setting"


@dataclass(frozen=True)
class Effective(Generic[SettingsType]):
    """The settings, and for each field where its value is from."""

    settings: SettingsType
    sources: Mapping[str, Source]


def read_settings(
    kind: type[SettingsType], options: Mapping[str, Any], env_file: Path = ENV_FILE
) -> Effective[SettingsType]:
    """:raises InvalidSettingError: naming every setting that is wrong, and variables that look like one but are not."""
    file = dotenv_values(env_file)
    _refuse_unknown(os.environ, "environment")
    _refuse_unknown(file, str(env_file))
    given: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    for field in kind.model_fields:
        found: Iterable[tuple[Source, Any]] = (
            ("option", options.get(field)),
            *(("environment", os.environ.get(name)) for name in variables(kind, field)),
            *(("file", _content(os.environ, name)) for name in variables(kind, field)),
            *((".env", file.get(name)) for name in variables(kind, field)),
        )
        sources[field], value = next((pair for pair in found if pair[1] not in (None, "")), ("default", None))
        if value is not None:
            given[field] = value
    try:
        return Effective(kind.model_validate(given), sources)
    except ValidationError as error:
        faults = (_explain(kind, fault, sources) for fault in error.errors())
        raise InvalidSettingError("; ".join(faults)) from None


def _content(environment: Mapping[str, str], name: str) -> str | None:
    """What the file holds that the variable `<name>_FILE` names: a secret that no list of processes shows."""
    path = environment.get(name + FILE_SUFFIX)
    if not path:
        return None
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InvalidSettingError(f"{name}{FILE_SUFFIX} is {path!r}, which cannot be read: {reason}") from None


def variables(kind: type[BaseSettings], field: str) -> list[str]:
    """The environment variables that set a field, the first of them being its own."""
    alias = kind.model_fields[field].validation_alias
    return [str(name) for name in alias.choices] if isinstance(alias, AliasChoices) else [PREFIX + field.upper()]


def shown(kind: type[BaseSettings], field: str, value: Any) -> str:
    """A value as it may be printed: no secret, and no password in a URL."""
    if value is None:
        return ""
    if is_secret(kind, field):
        return "(hidden)"
    text = str(value)
    for password in passwords_of(text):
        text = text.replace(f":{password}@", ":***@").replace(f"password={password}", "password=***")
    return text


def secrets_of(settings: BaseSettings) -> set[str]:
    """The texts in the settings that nobody is to read in a log."""
    kind = type(settings)
    values = {field: str(value) for field, value in settings if value is not None}
    hidden = {value for field, value in values.items() if is_secret(kind, field)}
    passwords = {password for value in values.values() for password in passwords_of(value)}
    return {text for text in hidden | passwords | set(map(unquote, passwords)) if text}


def is_secret(kind: type[BaseSettings], field: str) -> bool:
    extra = kind.model_fields[field].json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("secret"))


def passwords_of(text: str) -> set[str]:
    """The passwords in a URL, as they stand there."""
    if "://" not in text:
        return set()
    parts = urlsplit(text)
    pairs = (pair.partition("=")[::2] for pair in parts.query.split("&"))
    found = {value for name, value in pairs if name.endswith("password")}
    return {*found, parts.netloc.rpartition("@")[0].partition(":")[2]} - {""}


def _refuse_unknown(names: Iterable[str], where: str) -> None:
    known = {
        name for kind in (Settings, ClientSettings) for field in kind.model_fields for name in variables(kind, field)
    }
    for name in names:
        if name.startswith(PREFIX) and name.removesuffix(FILE_SUFFIX) not in known:
            close = difflib.get_close_matches(name.removeprefix(PREFIX), [n.removeprefix(PREFIX) for n in known], n=1)
            hint = f"did you mean {PREFIX}{close[0]}?" if close else "`framedit config` lists those there are"
            raise InvalidSettingError(f"there is no setting {name} ({where}); {hint}")


def _explain(kind: type[BaseSettings], fault: Any, sources: Mapping[str, Source]) -> str:
    name = str(fault["loc"][0])
    field = next((field for field in kind.model_fields if name in (field, *variables(kind, field))), name)
    source = sources.get(field, "option")
    value = shown(kind, field, fault["input"]) if field in kind.model_fields else fault["input"]
    place = f" ({source}: {variables(kind, field)[0]})" if source in ("environment", ".env") else ""
    return f"{field} is {value!r}{place}: {fault['msg']}"
