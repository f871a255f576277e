"""Where settings come from: options, environment, files named by `<NAME>_FILE`, `.env`, defaults, in this order."""

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pydantic import AliasChoices, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from jobs.errors import FrameditError
from jobs.settings_secrets import shown

Origin = Literal["option", "environment", "file", ".env", "default"]
SettingsType = TypeVar("SettingsType", bound="SourcedSettings")

ENV_FILE = Path(".env")
PREFIX = "FRAMEDIT_"
FILE_SUFFIX = "_FILE"
# Old names that still work, and the names to use.
DEPRECATED = {"FRAMEDIT_MAX_SEATS": "FRAMEDIT_MAX_SLOTS"}


class InvalidSettingError(FrameditError, ValueError):
    """A setting that does not exist or has a value that is not allowed; the message names it and its source."""

    code = "invalid_setting"


class SourcedSettings(BaseSettings):
    """Base class of settings: the order of their sources."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid", hide_input_in_errors=True
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The first source with a value for a field decides."""
        return init_settings, env_settings, NamedFileSource(settings_cls), dotenv_settings


class NamedFileSource(EnvSettingsSource):
    """The contents of the files that variables `<NAME>_FILE` name: secrets that no list of processes shows."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        names = {name for field in self.settings_cls.model_fields for name in variables(self.settings_cls, field)}
        return {name.lower(): _content(path, name) for name in names if (path := os.environ.get(name + FILE_SUFFIX))}


class EnvFileSource(DotEnvSettingsSource):
    """The lines of `.env` that are settings. The file may hold variables of other programs as well."""

    def __call__(self) -> dict[str, Any]:
        return EnvSettingsSource.__call__(self)


class _OriginRecorder(PydanticBaseSettingsSource):
    """The last source: it has no values and notes which of the sources before it decides each field."""

    _ORIGINS: Mapping[str, Origin] = {
        InitSettingsSource.__name__: "option",
        EnvSettingsSource.__name__: "environment",
        NamedFileSource.__name__: "file",
        EnvFileSource.__name__: ".env",
    }

    def __call__(self) -> dict[str, Any]:
        self.origins: dict[str, Origin] = dict.fromkeys(self.settings_cls.model_fields, "default")
        for source, values in reversed(self.settings_sources_data.items()):
            self.origins |= {_field(self.settings_cls, key): self._ORIGINS[source] for key in values}
        return {}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False


@dataclass(frozen=True)
class ReadSettings(Generic[SettingsType]):
    """Settings, the origin of each field's value, and what the operator should be warned about."""

    settings: SettingsType
    origins: Mapping[str, Origin]
    warnings: tuple[str, ...] = ()


def read_settings(
    kind: type[SettingsType], options: Mapping[str, Any], env_file: Path = ENV_FILE
) -> ReadSettings[SettingsType]:
    """Read settings from all sources. An option that is None is not given.

    Raises `InvalidSettingError` that names every invalid setting, or a `FRAMEDIT_` variable that is no setting.
    """
    given = {name: value for name, value in options.items() if value is not None}
    environment = EnvSettingsSource(kind)
    file = EnvFileSource(kind, env_file=env_file)
    _refuse_unknown(environment.env_vars, "environment")
    _refuse_unknown(file.env_vars, str(env_file))
    option = InitSettingsSource(kind, given)
    sources = kind.settings_customise_sources(kind, option, environment, file, option)
    recorder = _OriginRecorder(kind)
    try:
        settings = kind(_build_sources=((*sources, recorder), given))  # type: ignore[call-arg]
    except ValidationError as error:
        faults = (_explain(kind, fault, recorder.origins) for fault in error.errors())
        raise InvalidSettingError("; ".join(faults)) from None
    return ReadSettings(settings, recorder.origins, _deprecations(environment.env_vars, file.env_vars))


def variables(kind: type[BaseSettings], field: str) -> list[str]:
    """Return the environment variables that set a field, the one to use first."""
    alias = kind.model_fields[field].validation_alias
    return [str(name) for name in alias.choices] if isinstance(alias, AliasChoices) else [PREFIX + field.upper()]


def _field(kind: type[BaseSettings], key: str) -> str:
    """The field that a source or an error means by `key`: its name, or one of its variables."""
    return next(field for field in kind.model_fields if key in (field, *variables(kind, field)))


def _content(path: str, name: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InvalidSettingError(f"{name}{FILE_SUFFIX} is {path!r}, which cannot be read: {reason}") from None


def _refuse_unknown(names: Iterable[str], where: str) -> None:
    kinds = SourcedSettings.__subclasses__()
    known = {name for kind in kinds for field in kind.model_fields for name in variables(kind, field)}
    for name in map(str.upper, names):
        if name.startswith(PREFIX) and name.removesuffix(FILE_SUFFIX) not in known:
            close = difflib.get_close_matches(name.removeprefix(PREFIX), [n.removeprefix(PREFIX) for n in known], n=1)
            hint = f"did you mean {PREFIX}{close[0]}?" if close else "`framedit config` lists all settings"
            raise InvalidSettingError(f"there is no setting {name} ({where}); {hint}")


def _deprecations(*sources: Mapping[str, str | None]) -> tuple[str, ...]:
    """A warning for each old name that is set and that no new name overrides."""
    names = {name.upper() for source in sources for name in source}
    return tuple(
        f"{old} is deprecated: use {new}" for old, new in DEPRECATED.items() if old in names and new not in names
    )


def _explain(kind: type[BaseSettings], fault: Any, origins: Mapping[str, Origin]) -> str:
    field = _field(kind, str(fault["loc"][0]))
    origin = origins[field]
    place = "" if origin in ("option", "default") else f" ({origin}: {variables(kind, field)[0]})"
    return f"{field} is {shown(kind, field, fault['input'])!r}{place}: {fault['msg']}"
