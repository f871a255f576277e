"""The result of a load: counts, rates and percentiles, as JSON and as rows of text."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from cli.bench.sample import Sample
from jobs.errors import InvalidRequestError

STAGES = {
    "accept_s": "accepted",
    "queue_s": "queue",
    "first_progress_s": "first progress",
    "done_s": "done",
}
PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Summary:
    """A finished load. `options` are what was measured: server, model, arrivals, mixes."""

    options: dict[str, Any]
    samples: list[Sample]
    slo_seconds: float | None = None

    def count(self, outcome: str) -> int:
        return sum(sample.outcome == outcome for sample in self.samples)

    @property
    def duration_s(self) -> float:
        """From the first request to the end of the last video."""
        ends = [sample.sent_at + (sample.done_s or 0.0) for sample in self.samples]
        return max(ends, default=0.0) - min((sample.sent_at for sample in self.samples), default=0.0)

    @property
    def videos_per_second(self) -> float:
        return self.count("completed") / self.duration_s if self.duration_s else 0.0

    @property
    def within_slo(self) -> int:
        """How many videos were completed within the objective; all completed ones without an objective."""
        slo = float("inf") if self.slo_seconds is None else self.slo_seconds
        return sum(seconds <= slo for seconds in self.seconds("done_s"))

    @property
    def goodput(self) -> float:
        """Videos a second that were completed within the objective."""
        return self.within_slo / self.duration_s if self.duration_s else 0.0

    def seconds(self, stage: str, group: str | None = None) -> list[float]:
        """The values of a stage of all completed videos, or those of one group."""
        return [
            value
            for sample in self.samples
            if sample.outcome == "completed"
            and group in (None, sample.group)
            and (value := getattr(sample, stage)) is not None
        ]

    def groups(self) -> list[str]:
        return sorted({sample.group for sample in self.samples if sample.group})

    def errors(self) -> dict[str, int]:
        """How often each error occurred, the most frequent first."""
        return dict(Counter(sample.error for sample in self.samples if sample.error is not None).most_common())

    def rows(self) -> list[tuple[str, ...]]:
        """Mean and percentiles of each stage, and of the end in each group."""
        named = {name: self.seconds(stage) for stage, name in STAGES.items()}
        named |= {f"done: {group}": self.seconds("done_s", group) for group in self.groups()}
        return [
            (name, *(f"{value:.3f}" for value in statistics(values).values()))
            for name, values in named.items()
            if values
        ]

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(self.to_json(), indent=2) + "\n", encoding="utf-8")

    def to_json(self) -> dict[str, Any]:
        """The counts and statistics, for other programs, and the samples, which `load` reads."""
        return {
            "options": self.options,
            "duration_s": round(self.duration_s, 3),
            **{outcome: self.count(outcome) for outcome in ("completed", "failed", "refused")},
            "videos_per_second": round(self.videos_per_second, 4),
            "slo_seconds": self.slo_seconds,
            "within_slo": self.within_slo,
            "goodput_videos_per_second": round(self.goodput, 4),
            **{stage: _rounded(statistics(self.seconds(stage))) for stage in STAGES},
            "groups": {group: _rounded(statistics(self.seconds("done_s", group))) for group in self.groups()},
            "samples": [_rounded(asdict(sample)) for sample in self.samples],
        }

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file that `save` has written. Raises `InvalidRequestError` when it is none."""
        try:
            content = json.loads(path.read_bytes())
            samples = TypeAdapter(list[Sample]).validate_python(content["samples"])
            return cls(dict(content["options"]), samples, content["slo_seconds"])
        except OSError as error:
            raise InvalidRequestError(f"{path} cannot be read: {error.strerror}") from None
        except (ValidationError, ValueError, KeyError, TypeError):
            raise InvalidRequestError(f"{path} is no result: `framedit bench --json {path}` writes one") from None


def statistics(values: Sequence[float]) -> dict[str, float]:
    """The mean and the percentiles of `values`; nothing for no values."""
    if not values:
        return {}
    return {"mean": fmean(values)} | {f"p{share}": percentile(values, share / 100) for share in PERCENTILES}


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least `share` (0 to 1) of them do not exceed."""
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}
