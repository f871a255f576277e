"""Usage: the accepted videos and their cost, by API key and day (UTC)."""

import csv
import io
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, ConfigDict, Field
from redis import Redis
from redis.client import Pipeline

from jobs import redis_keys
from jobs.videos.record import VideoRecord

MAX_DAYS = 100
_DAY_SECONDS = 24 * 3600
# The owner of videos that were created without a key.
ANONYMOUS = "anonymous"


class DayUsage(BaseModel):
    """The usage of one API key on one day."""

    model_config = ConfigDict(frozen=True)

    date: str = Field(description="Day in UTC, as YYYY-MM-DD")
    key: str = Field(description=f"Id of the API key; `{ANONYMOUS}` for videos created without one")
    videos: int = Field(description="Accepted videos")
    cost: int = Field(description="Their cost: steps x rows x tokens")


class UsageGuard:
    """Counts new videos in the transaction that creates them, as a `Guard` of `VideoQueue.create` that refuses none."""

    def __init__(self, owner: str | None, clock: Callable[[], float] = time.time) -> None:
        self._owner = owner or ANONYMOUS
        self._date = _date(clock())

    def watched(self) -> Sequence[str]:
        return []

    def check(self, pipe: Pipeline, records: Sequence[VideoRecord]) -> None:
        pass

    def commit(self, pipe: Pipeline, records: Sequence[VideoRecord]) -> None:
        key = redis_keys.usage(self._date)
        pipe.hincrby(key, f"{self._owner}:videos", len(records))
        pipe.hincrby(key, f"{self._owner}:cost", sum(record.cost for record in records))
        pipe.expire(key, (MAX_DAYS + 1) * _DAY_SECONDS)


def read_usage(
    redis: Redis, num_days: int, owner: str | None = None, clock: Callable[[], float] = time.time
) -> Sequence[DayUsage]:
    """Return the usage of one owner, or of all, in the last `num_days` days including today, the newest first."""
    today = datetime.fromtimestamp(clock(), UTC)
    dates = [_date((today - timedelta(days=days)).timestamp()) for days in range(num_days)]
    with redis.pipeline(transaction=False) as pipe:
        for date in dates:
            pipe.hgetall(redis_keys.usage(date))
        found = [row for date, raw in zip(dates, pipe.execute(), strict=True) for row in _rows(date, raw)]
    return [row for row in found if owner in (None, row.key)]


def usage_csv(rows: Sequence[DayUsage]) -> str:
    """Return usage as CSV with a head line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(DayUsage.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.model_dump() for row in rows)
    return text.getvalue()


def _rows(date: str, raw: dict[bytes, bytes]) -> list[DayUsage]:
    counts = {name.decode(): int(count) for name, count in raw.items()}
    owners = sorted(name.removesuffix(":videos") for name in counts if name.endswith(":videos"))
    return [
        DayUsage(date=date, key=owner, videos=counts[f"{owner}:videos"], cost=counts.get(f"{owner}:cost", 0))
        for owner in owners
    ]


def _date(unix_seconds: float) -> str:
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%d")
