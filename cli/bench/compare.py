"""Two results side by side."""

from cli.bench.summary import STAGES, Summary, statistics


def compare(first: Summary, second: Summary) -> list[tuple[str, ...]]:
    """Rows of (measurement, first, second, change)."""
    rows = [("videos/s", first.videos_per_second, second.videos_per_second)]
    if first.slo_seconds is not None and first.slo_seconds == second.slo_seconds:
        rows.append((f"videos/s within {first.slo_seconds:g} s", first.goodput, second.goodput))
    for stage, name in STAGES.items():
        ours, theirs = (statistics(summary.seconds(stage)) for summary in (first, second))
        rows += [(f"{name} s, {key}", ours[key], theirs[key]) for key in ours if key in theirs]
    rows.append(("failed or refused", float(_lost(first)), float(_lost(second))))
    return [(name, f"{a:.4g}", f"{b:.4g}", _change(a, b)) for name, a, b in rows]


def differences(first: Summary, second: Summary) -> list[str]:
    """The differences of the two loads, such as `model: demo-text, demo-class`."""
    names = sorted(first.options.keys() | second.options.keys())
    pairs = ((name, first.options.get(name), second.options.get(name)) for name in names)
    return [f"{name}: {a}, {b}" for name, a, b in pairs if a != b]


def _lost(summary: Summary) -> int:
    return summary.count("failed") + summary.count("refused")


def _change(first: float, second: float) -> str:
    return f"{second / first - 1:+.0%}" if first else ""
