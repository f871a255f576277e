"""Latency distributions as an SVG."""

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 720, 360, 56, 36, 16, 60
COLORS = ("#2563eb", "#f59e0b", "#059669", "#9333ea")
INK, GRID = "#3f3f46", "#d4d4d8"


def draw(lines: Mapping[str, Sequence[float]], title: str, limit: float | None = None) -> str:
    """Draw for each line the share of its values (in seconds) up to x; `limit` is marked by a vertical line."""
    longest = max([limit or 0.0, *(value for values in lines.values() for value in values)]) or 1.0

    def x(seconds: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * seconds / longest

    def y(share: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - share)

    parts = [_text(LEFT, 18, title, "start")]
    for quarter in range(5):
        share = quarter / 4
        parts += [_line(LEFT, y(share), WIDTH - RIGHT, y(share)), _text(LEFT - 8, y(share) + 4, f"{share:.0%}", "end")]
        parts.append(_text(x(longest * share), HEIGHT - BOTTOM + 18, f"{longest * share:.3g} s", "middle"))
    if limit is not None:
        parts.append(_line(x(limit), y(0), x(limit), y(1), INK))
    for index, (name, values) in enumerate(lines.items()):
        color = COLORS[index % len(COLORS)]
        points = " ".join(f"{x(seconds):.1f},{y(share):.1f}" for seconds, share in _steps(values))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        parts.append(_text(LEFT + 160 * index, HEIGHT - 12, name, "start", color))
    style = "font-family:sans-serif;font-size:12px;background:#fff"
    view = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" style="{style}"'
    return f"<svg {view}>{''.join(parts)}</svg>\n"


def _steps(values: Sequence[float]) -> list[tuple[float, float]]:
    """The corners of the empirical distribution function."""
    points = [(0.0, 0.0)]
    for index, value in enumerate(sorted(values)):
        points += [(value, points[-1][1]), (value, (index + 1) / len(values))]
    return points


def _line(x1: float, y1: float, x2: float, y2: float, color: str = GRID) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}"/>'


def _text(x: float, y: float, words: str, anchor: str, color: str = INK) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}">{escape(words)}</text>'
