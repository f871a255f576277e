"""The secret settings, and how values are shown without them."""

from typing import Any, get_args
from urllib.parse import unquote

from pydantic import SecretStr
from pydantic_settings import BaseSettings


def shown(kind: type[BaseSettings], field: str, value: Any) -> str:
    """Return a value as it may be printed: secrets and the passwords in URLs are hidden."""
    if value is None:
        return ""
    if is_secret(kind, field):
        return "(hidden)"
    text = str(value)
    for password in passwords_of(text):
        text = text.replace(f":{password}@", ":***@").replace(f"password={password}", "password=***")
    return text


def is_secret(kind: type[BaseSettings], field: str) -> bool:
    annotation = kind.model_fields[field].annotation
    return SecretStr in (annotation, *get_args(annotation))


def secrets_of(settings: BaseSettings) -> set[str]:
    """Return the texts in the settings that must not appear in a log."""
    values = [value for _, value in settings if value is not None]
    secrets = {value.get_secret_value() for value in values if isinstance(value, SecretStr)}
    passwords = {password for value in values for password in passwords_of(str(value))}
    return {text for text in secrets | passwords | set(map(unquote, passwords)) if text}


def passwords_of(text: str) -> set[str]:
    """Return the passwords in a URL, as they are written there."""
    if "://" not in text:
        return set()
    # urlsplit refuses the lists of addresses in URLs of Sentinel.
    address, _, query = text.partition("://")[2].partition("#")[0].partition("?")
    authority = address.partition("/")[0]
    pairs = (pair.partition("=")[::2] for pair in query.split("&"))
    found = {value for name, value in pairs if name.endswith("password")}
    return {*found, authority.rpartition("@")[0].partition(":")[2]} - {""}
