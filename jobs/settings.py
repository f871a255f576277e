"""The settings of every process, read from the environment once, by `main()` or `create_app()`."""

import base64
import ipaddress
import re
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Each field is the environment variable `FRAMEDIT_<NAME>`; some are also known by a plain name (their alias)."""

    model_config = SettingsConfigDict(
        env_prefix="FRAMEDIT_", env_ignore_empty=True, populate_by_name=True, frozen=True, extra="forbid"
    )

    redis_url: str | None = Field(
        default=None,
        validation_alias=AliasChoices("FRAMEDIT_REDIS_URL", "REDIS_URL"),
        description="Redis or Valkey: `redis://host:port/0`, `rediss://` or `unix:///path`. "
        "Without it `framedit serve` starts one.",
    )
    data_dir: Path = Field(default=Path("data"), description="What must outlive a restart: database and videos.")
    artifacts: Path | str = Field(
        default_factory=lambda data: data.get("data_dir", Path("data")) / "artifacts",
        description="The folder of finished videos, or `s3://bucket/prefix`; server and workers must see the same one.",
    )
    artifact_delivery: Literal["proxy", "redirect"] = Field(
        default="proxy",
        description="Videos in S3 go through the server, or clients are sent to the store with a URL for 5 minutes.",
    )
    artifact_retry_seconds: int = Field(
        default=600,
        ge=0,
        description="How long a worker tries to write and store a video while a disk is full or the store is away.",
    )
    checkpoints: Path = Field(default=Path("checkpoints"), description="A folder of checkpoint folders.")

    host: str = Field(default="127.0.0.1", description="The address that the server listens on.")
    port: int = Field(default=8000, ge=0, le=65535, description="The port that the server listens on.")
    allow_anonymous: bool = Field(
        default=False,
        description="Serve everybody as long as no API key was ever made, on other addresses than this machine's too.",
    )
    cors_origins: str = Field(
        default="", description="Origins whose web pages may call the API, with commas between; `*` is every one."
    )
    metrics_without_key: bool = Field(default=False, description="`/metrics` needs no API key, where there are keys.")
    max_body_bytes: int = Field(default=1 << 20, ge=1, description="A larger request body is refused.")

    sync_timeout_seconds: float = Field(
        default=300, gt=0, description="How long `POST /v1/videos/sync` waits for its video before it answers 504."
    )
    webhook_secret: str | None = Field(
        default=None,
        description="Signs webhooks: `whsec_` and base64, or 24 characters at least. Without it none are sent.",
        json_schema_extra={"secret": True},
    )
    webhook_allow_private: bool = Field(
        default=False, description="Webhooks may also go to addresses that are not of the public internet."
    )

    device: str = Field(default="auto", description="`auto`, `cpu`, `cuda` or `cuda:N`.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="`auto` is float32 on the CPU and bfloat16 on CUDA."
    )
    max_batch_rows: int = Field(
        default=0,
        ge=0,
        description="The most rows of a forward pass: two of a request with guidance, else one. 0 is 8 on the CPU and "
        "32 on CUDA.",
    )
    batch_margin: float = Field(
        default=0.05, ge=0, description="A larger batch must raise the rows per second by more than this share."
    )
    max_seats: int = Field(default=16, ge=1, description="The most videos that one worker has at work at once.")
    deterministic: bool = Field(
        default=False, description="The same request gives the same video bit for bit, alone or in any batch; slower."
    )
    resume_seconds: float = Field(
        default=30.0,
        ge=0,
        description="A video that is taken over has lost no more than these seconds of work; 0: it begins anew.",
    )
    resume_max_bytes: int = Field(
        default=16 << 20, ge=0, description="What a worker keeps in Redis for that, of all its videos together."
    )
    max_model_bytes: int | None = Field(
        default=None,
        ge=1,
        description="Of a worker's loaded models; the least recently used one is unloaded. Without it, all memory.",
    )
    worker_ttl_seconds: int = Field(default=30, ge=1, description="A worker silent for this long counts as away.")
    max_attempts: int = Field(default=3, ge=1, description="How often a video is started before it has failed.")
    drain_seconds: float = Field(
        default=10.0, ge=0, description="How long a worker that is asked to stop goes on with what it has at work."
    )
    step_timeout_seconds: float = Field(
        default=300.0, gt=0, description="A denoising step, or loading a model, that takes longer hangs."
    )
    max_wait_seconds: float | None = Field(
        default=None, gt=0, description="A video that would wait longer is refused; without it, none is."
    )
    video_ttl_seconds: int | None = Field(
        default=None,
        ge=1,
        description="How long a video is kept after its end, record and files; without it, until deleted.",
    )
    redis_timeout_seconds: float = Field(default=5.0, gt=0, description="The longest wait for one answer of Redis.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="How much is logged.")
    log_format: Literal["text", "json"] = Field(
        default="text", description="`json` is an object a line, with the ids of request and video."
    )
    otlp_endpoint: str | None = Field(
        default=None,
        validation_alias=AliasChoices("FRAMEDIT_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        pattern=r"^https?://",
        description="Where traces go, by OTLP over HTTP: `http://host:4318`. Without it there are none.",
    )

    @field_validator("artifacts")
    @classmethod
    def _folder_or_url(cls, value: Path | str) -> Path | str:
        return value if "://" in str(value) else Path(value)

    @field_validator("webhook_secret")
    @classmethod
    def _can_sign(cls, value: str | None) -> str | None:
        try:
            long_enough = value is None or len(secret_bytes(value)) >= 24
        except ValueError:
            long_enough = False
        if not long_enough:
            raise ValueError("it should be whsec_ and the base64 of 24 bytes or more, or 24 characters or more")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: str) -> str:
        for origin in split_origins(value):
            if origin != "*" and not re.fullmatch(r"https?://[^/\s]+", origin):
                raise ValueError(f"{origin!r} is no origin; write it as https://host or http://host:port, or * for all")
        return value

    @property
    def serves_anonymous(self) -> bool:
        """Whether those without an API key are served while none was ever made."""
        return self.allow_anonymous or is_loopback(self.host)


def secret_bytes(secret: str) -> bytes:
    """The key that webhooks are signed with: what follows `whsec_` is base64, other text is its own bytes.

    Raises ValueError for what is no base64.
    """
    if secret.startswith("whsec_"):
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    return secret.encode()


class ClientSettings(BaseSettings):
    """What the commands that ask a server take: `framedit submit`, `list`, `models`, `cancel`, `delete`."""

    model_config = SettingsConfigDict(env_prefix="FRAMEDIT_", env_ignore_empty=True, frozen=True, extra="forbid")

    server: str = Field(default="http://127.0.0.1:8000", pattern=r"^https?://", description="The server to ask.")
    api_key: str | None = Field(default=None, description="The API key to show it.", json_schema_extra={"secret": True})


def split_origins(origins: str) -> list[str]:
    """The origins in `cors_origins`."""
    return [origin.strip() for origin in origins.split(",") if origin.strip()]


@cache
def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
