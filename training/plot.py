"""Loss curves as an SVG, from the logs that the training stages keep."""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 720, 360, 64, 24, 16, 44
COLORS = ("#2563eb", "#dc2626", "#059669", "#9333ea")
SMOOTHING = 0.9

Curve = list[tuple[float, float]]


def read_curve(log: Path, column: str) -> Curve:
    """(step, smoothed value) of one column of a `log.jsonl`."""
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    curve: Curve = []
    for entry in entries:
        value = entry[column] if not curve else SMOOTHING * curve[-1][1] + (1 - SMOOTHING) * entry[column]
        curve.append((entry["step"], value))
    if not curve:
        raise ValueError(f"{log} has no entries: train first")
    return curve


def draw(curves: dict[str, Curve], title: str) -> str:
    """The curves over a logarithmic axis, each named in its colour."""
    values = [value for curve in curves.values() for _, value in curve]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    last = max(curve[-1][0] for curve in curves.values())

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / last

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - math.log10(value)) / (high - low)

    parts = [_text(LEFT, 16, title, "start")]
    for power in range(low, high + 1):
        parts += [_line(LEFT, y(10**power), WIDTH - RIGHT, y(10**power))]
        parts += [_text(LEFT - 8, y(10**power) + 4, f"{10**power:g}", "end")]
    for quarter in range(5):
        step = last * quarter / 4
        parts.append(_text(x(step), HEIGHT - BOTTOM + 18, f"{step:,.0f}", "middle"))
    for index, (name, curve) in enumerate(curves.items()):
        points = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in curve)
        color = COLORS[index % len(COLORS)]
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        parts.append(_text(LEFT + 8 + 170 * index, HEIGHT - 6, name, "start", color))
    style = "font-family:sans-serif;font-size:12px;background:#fff"
    view = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" style="{style}"'
    return f"<svg {view}>{''.join(parts)}</svg>\n"


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1}" y1="{y1:.1f}" x2="{x2}" y2="{y2:.1f}" stroke="#d4d4d8"/>'


def _text(x: float, y: float, words: str, anchor: str, color: str = "#3f3f46") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}">{words}</text>'


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("logs", nargs="+", metavar="NAME=LOG", help="a curve's name and its log.jsonl")
    parser.add_argument("--column", default="noise", help="which of the logged values (default: noise)")
    parser.add_argument("--title", default="squared error of the predicted noise, by step")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    named = dict(item.split("=", 1) for item in options.logs)
    curves = {name: read_curve(Path(log), options.column) for name, log in named.items()}
    options.out.write_text(draw(curves, options.title))


if __name__ == "__main__":
    main()
