"""The settings of every process, read once by `main()` or `create_app()` and passed on."""

import base64
import ipaddress
import re
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from jobs.settings_sources import SourcedSettings

FileMetadataLevel = Literal["off", "settings", "prompts"]


class Settings(SourcedSettings):
    """Each field is the environment variable `FRAMEDIT_<NAME>`; some have a second name (an alias)."""

    model_config = SettingsConfigDict(populate_by_name=True)

    redis_url: str | None = Field(
        default=None,
        validation_alias=AliasChoices("FRAMEDIT_REDIS_URL", "REDIS_URL"),
        repr=False,
        description="URL of the Redis or Valkey server: `redis://host:port/0`, `rediss://` or `unix:///path`. "
        "Default: `framedit serve` starts a server of its own.",
    )
    data_dir: Path = Field(
        default=Path("data"), description="Folder for the data that survive a restart: the database and the videos."
    )
    artifacts: Path | str = Field(
        default_factory=lambda data: data.get("data_dir", Path("data")) / "artifacts",
        description="Folder of finished videos, or `s3://bucket/prefix`. The server and all workers need the same one.",
    )
    artifact_delivery: Literal["proxy", "redirect"] = Field(
        default="proxy",
        description="How clients download videos from S3: `proxy` sends them through the server, `redirect` sends "
        "clients to the store with a URL that is valid for 5 minutes.",
    )
    artifact_retry_seconds: int = Field(
        default=600,
        ge=0,
        description="How long a worker retries to store a video while the disk is full or the store is unreachable.",
    )
    checkpoints: Path = Field(
        default=Path("checkpoints"), description="Folder of checkpoint folders, or one checkpoint folder."
    )
    adapters: Path = Field(
        default=Path("adapters"),
        description="Folder of adapter folders (LoRA), which requests name. All workers need the same ones.",
    )

    host: str = Field(default="127.0.0.1", description="Address that the server listens on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port that the server listens on; 0 for any free port.")
    tls_cert: Path | None = Field(
        default=None, description="PEM file with the certificate chain of the server, which then serves HTTPS only."
    )
    tls_key: Path | None = Field(default=None, description="PEM file with the private key of `FRAMEDIT_TLS_CERT`.")
    allow_anonymous: bool = Field(
        default=False,
        description="Accept requests from other machines without an API key, as long as no API key exists.",
    )
    allowed_hosts: str = Field(
        default="",
        description="Comma-separated host names under which clients without an API key may reach the server, besides "
        "`localhost` and loopback addresses; `*` allows every name. Protects against DNS rebinding.",
    )
    cors_origins: str = Field(
        default="",
        description="Comma-separated origins whose web pages may call the API; `*` allows every origin.",
    )
    metrics_without_key: bool = Field(
        default=False, description="Serve `/metrics` without an API key, even if API keys exist."
    )
    failed_keys_per_minute: int = Field(
        default=60, ge=1, description="Maximum number of requests per minute with an unknown API key, per address."
    )
    anonymous_requests_per_minute: int | None = Field(
        default=None,
        ge=1,
        description="Maximum number of requests per minute without an API key, per address. Default: no limit.",
    )
    audit_log: Path | None = Field(
        default=None,
        description="File to which the server appends a JSON line for each change that a client makes or is refused. "
        "Default: no audit log.",
    )
    max_body_bytes: int = Field(
        default=1 << 20, ge=1, description="Maximum size of a request body. The server refuses larger ones."
    )
    max_upload_bytes: int = Field(
        default=16 << 20, ge=1, description="Maximum size of a form that uploads an image or a video."
    )
    max_reference_frames: int = Field(
        default=1024, ge=2, description="Maximum number of frames of an uploaded video, and of an extended video."
    )
    max_reference_pixels: int = Field(
        default=4096 * 4096, ge=1, description="Maximum number of pixels of a frame of an uploaded image or video."
    )
    reference_timeout_seconds: float = Field(
        default=20, gt=0, description="Maximum time to decode, or to download, an image or a video of a request."
    )
    image_urls: Literal["data", "public", "any"] = Field(
        default="data",
        description="URLs that `image_url` may hold: `data` for data URLs only, `public` for http and https URLs of "
        "public addresses as well, `any` for those of private addresses, too.",
    )
    max_connections: int = Field(
        default=1000,
        ge=1,
        description="Maximum number of client connections. A new one replaces the connection that has been idle "
        "longest, or is answered with 503.",
    )

    default_model: str | None = Field(
        default=None,
        description="Model of a request that names none and whose fields fit several models. "
        "Default: such a request is refused.",
    )
    sync_timeout_seconds: float = Field(
        default=300, gt=0, description="How long `POST /v1/videos/sync` waits for its video before it answers 504."
    )
    webhook_secret: SecretStr | None = Field(
        default=None,
        description="Key that signs webhooks: `whsec_` and base64, or at least 24 characters. "
        "Default: no webhooks are sent.",
    )
    webhook_secret_previous: SecretStr | None = Field(
        default=None,
        description="The secret before a rotation. While it is set, webhooks carry signatures by both secrets.",
    )
    webhook_allow_private: bool = Field(
        default=False, description="Send webhooks to private addresses as well as to public ones."
    )

    enhancer_url: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="OpenAI-compatible API whose language model rewrites prompts of requests with `enhance_prompt`, "
        "such as `http://127.0.0.1:8001/v1`. Default: no prompt is rewritten.",
    )
    enhancer_model: str | None = Field(default=None, description="Model of `FRAMEDIT_ENHANCER_URL`.")
    enhancer_api_key: SecretStr | None = Field(
        default=None, description="API key that is sent to `FRAMEDIT_ENHANCER_URL`."
    )
    enhancer_timeout_seconds: float = Field(
        default=10,
        gt=0,
        description="How long the server waits for the enhancer. Then the video has the prompt of the client.",
    )
    moderation_url: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="Service that allows or denies the prompt of each request before it is accepted. "
        "Default: every prompt is allowed.",
    )
    moderation_timeout_seconds: float = Field(
        default=5, gt=0, description="How long the server waits for the moderation service."
    )
    moderation_failure: Literal["closed", "open"] = Field(
        default="closed",
        description="What happens while the moderation service gives no answer: `closed` refuses requests with 503, "
        "`open` accepts them.",
    )

    device: str = Field(
        default="auto",
        description="Device of a worker: `cpu`, `cuda`, `cuda:N`, or `auto` for CUDA if available, else the CPU.",
    )
    gpus_per_video: int = Field(
        default=1,
        ge=1,
        description="Number of GPUs of this machine that one worker uses, and that share its passes: that of "
        "`FRAMEDIT_DEVICE` and those with the next numbers.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="Number format of the models: `float32`, `bfloat16`, `float16`, or `auto` for float32 on the CPU "
        "and bfloat16 on CUDA.",
    )
    text_encoder_device: Literal["auto", "cpu", "cuda", "offload"] = Field(
        default="auto",
        description="Where a worker encodes prompts: `cuda` or `cpu`, `offload` for CUDA with the weights in CPU "
        "memory until they are needed, or `auto` for the device of the other models.",
    )
    max_batch_rows: int = Field(
        default=0,
        ge=0,
        description="Maximum number of rows in a batch; a guided request has two rows, any other request one. "
        "0: 8 rows on the CPU, 32 on CUDA.",
    )
    batch_margin: float = Field(
        default=0.05,
        ge=0,
        description="Minimum relative gain in rows per second for which the scheduler makes a batch larger.",
    )
    max_slots: int = Field(
        default=16,
        ge=1,
        validation_alias=AliasChoices("FRAMEDIT_MAX_SLOTS", "FRAMEDIT_MAX_SEATS"),
        description="Number of slots of a worker: the maximum number of videos it has in progress at once.",
    )
    fast: Literal["auto", "off"] = Field(
        default="auto",
        description="Fast path of the workers on CUDA, fused operations and CUDA graphs: `auto` or `off`. "
        "It changes the last digits of a video.",
    )
    deterministic: bool = Field(
        default=False,
        description="Make the same request give the same video bit for bit, whatever else is in its batch. "
        "Slower where passes of several rows round differently, which a worker on CUDA measures at its start.",
    )
    file_metadata: FileMetadataLevel = Field(
        default="settings",
        description="What the metadata of a video's file state: `settings` for model, seed and settings, `prompts` for "
        "the prompts as well, `off` for nothing.",
    )
    c2pa_cert: Path | None = Field(
        default=None,
        description="PEM file with the certificate chain with which workers sign files (C2PA). Default: no signatures.",
    )
    c2pa_key: Path | None = Field(default=None, description="PEM file with the private key of `FRAMEDIT_C2PA_CERT`.")
    resume_seconds: float = Field(
        default=30.0,
        ge=0,
        description="Interval between snapshots of a video in progress. After a crash, another worker resumes it from "
        "the last snapshot. 0: no snapshots; the video starts again from its first step.",
    )
    resume_max_bytes: int = Field(
        default=16 << 20, ge=0, description="Maximum size of the snapshots that one worker keeps in Redis."
    )
    max_model_bytes: int | None = Field(
        default=None,
        ge=1,
        description="Memory limit for the models a worker keeps loaded. When it is exceeded, the least recently used "
        "model is unloaded. Default: no limit.",
    )
    max_adapter_bytes: int = Field(
        default=1 << 30,
        ge=1,
        description="Memory limit for the adapters a worker keeps loaded, and the maximum size of one. When it is "
        "exceeded, the least recently used adapter is unloaded.",
    )
    model_idle_seconds: float | None = Field(
        default=None,
        gt=0,
        description="A worker unloads a model that no video has used for this time. Default: never.",
    )
    worker_ttl_seconds: int = Field(
        default=30, ge=1, description="Time without a heartbeat after which a worker counts as lost."
    )
    max_attempts: int = Field(
        default=3, ge=1, description="Maximum number of attempts for a video. After the last one it fails."
    )
    drain_seconds: float = Field(
        default=10.0,
        ge=0,
        description="How long a worker that is stopping goes on with videos in progress before it returns them to the "
        "queue.",
    )
    step_timeout_seconds: float = Field(
        default=300.0,
        gt=0,
        description="Maximum time for one denoising step, for preparing one request, or for one model load. A worker "
        "that exceeds it stops renewing its leases and exits; other workers take over its videos.",
    )
    max_wait_seconds: float | None = Field(
        default=None,
        gt=0,
        description="Maximum estimated waiting time. A request that would wait longer is refused with 429 or 503. "
        "Default: no limit.",
    )
    video_ttl_seconds: int | None = Field(
        default=None,
        ge=1,
        description="How long the record and the files of a video are kept after it has ended. "
        "Default: until it is deleted.",
    )
    max_kept_videos: int = Field(
        default=100_000,
        ge=1,
        description="Maximum number of stored videos. The server refuses more with 503.",
    )
    max_kept_videos_per_key: int = Field(
        default=10_000,
        ge=1,
        description="Maximum number of stored videos of an API key without a limit of its own. The server refuses more "
        "with 429 until the client deletes some.",
    )
    redis_timeout_seconds: float = Field(default=5.0, gt=0, description="Timeout for one Redis command.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Minimum level of log lines: `debug`, `info`, `warning` or `error`."
    )
    log_format: Literal["text", "json"] = Field(
        default="text",
        description="Format of log lines: `text`, or `json` for one object per line with the ids of request and video.",
    )
    otlp_endpoint: str | None = Field(
        default=None,
        validation_alias=AliasChoices("FRAMEDIT_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        pattern=r"^https?://",
        repr=False,
        description="Receiver of traces, by OTLP over HTTP: `http://host:4318`. Default: no traces are sent.",
    )

    @field_validator("artifacts")
    @classmethod
    def _folder_or_url(cls, value: Path | str) -> Path | str:
        return value if "://" in str(value) else Path(value)

    @field_validator("webhook_secret", "webhook_secret_previous")
    @classmethod
    def _can_sign(cls, value: SecretStr | None) -> SecretStr | None:
        try:
            is_long_enough = value is None or len(secret_bytes(value.get_secret_value())) >= 24
        except ValueError:
            is_long_enough = False
        if not is_long_enough:
            raise ValueError("it must be `whsec_` and the base64 of at least 24 bytes, or at least 24 characters")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: str) -> str:
        for origin in split_list(value):
            if origin != "*" and not re.fullmatch(r"https?://[^/\s]+", origin):
                raise ValueError(f"{origin!r} is not an origin: write https://host or http://host:port, or * for all")
        return value

    @property
    def serves_anonymous(self) -> bool:
        """Whether requests without an API key are accepted as long as no API key exists."""
        return self.allow_anonymous or is_loopback(self.host)


def secret_bytes(secret: str) -> bytes:
    """Decode a webhook secret: base64 after `whsec_`, else the text itself.

    Raises `ValueError` for invalid base64.
    """
    if secret.startswith("whsec_"):
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    return secret.encode()


class ClientSettings(SourcedSettings):
    """Settings of the commands that call a server, such as `framedit submit`."""

    server: str = Field(default="http://127.0.0.1:8000", pattern=r"^https?://", description="URL of the server.")
    api_key: SecretStr | None = Field(default=None, description="API key that is sent to the server.")


def split_list(text: str) -> list[str]:
    """Return the parts of a comma-separated setting."""
    return [part.strip() for part in text.split(",") if part.strip()]


@lru_cache(maxsize=256)  # clients choose the names that are looked up
def is_loopback(host: str) -> bool:
    """Return whether a server that listens on `host` can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
