"""Line charts by load as a PNG, one panel per case."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

Points = Sequence[tuple[float, float]]

SCALE = 4  # drawn larger and scaled down for smooth lines
PANEL_WIDTH, PANEL_HEIGHT, LEGEND_HEIGHT = 360, 260, 40
LEFT, TOP, RIGHT, BOTTOM = 48, 40, 16, 40
COLORS = ("#a1a1aa", "#f59e0b", "#2563eb")
INK, GRID = "#3f3f46", "#e4e4e7"
NUM_GRID_LINES = 4


@dataclass(frozen=True)
class Panel:
    """One panel. `lines` maps a name to points (x, y); x is a share, labelled in percent."""

    title: str
    lines: Mapping[str, Points]


def save_chart(panels: Sequence[Panel], columns: int, y_label: str, path: Path) -> None:
    """Save the panels in rows of `columns`, above a legend. All panels have lines of the same names."""
    rows = -(-len(panels) // columns)
    size = (PANEL_WIDTH * columns, PANEL_HEIGHT * rows + LEGEND_HEIGHT)
    image = Image.new("RGB", (size[0] * SCALE, size[1] * SCALE), "white")
    pen = _Pen(ImageDraw.Draw(image))
    for index, panel in enumerate(panels):
        _draw_panel(pen, panel, PANEL_WIDTH * (index % columns), PANEL_HEIGHT * (index // columns), y_label)
    _draw_legend(pen, list(panels[0].lines), PANEL_HEIGHT * rows + 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.resize((size[0] * 2, size[1] * 2), Image.Resampling.LANCZOS).save(path, optimize=True)


class _Pen:
    """Draws in the units of the final image."""

    def __init__(self, draw: ImageDraw.ImageDraw) -> None:
        self._draw = draw
        self._font = ImageFont.load_default(11 * SCALE)

    def line(self, points: Points, color: str, width: float = 1) -> None:
        scaled = [(x * SCALE, y * SCALE) for x, y in points]
        self._draw.line(scaled, fill=color, width=round(width * SCALE), joint="curve")

    def dot(self, x: float, y: float, color: str) -> None:
        self._draw.circle((x * SCALE, y * SCALE), 3 * SCALE, fill=color)

    def text(self, x: float, y: float, words: str, anchor: str = "la") -> None:
        self._draw.text((x * SCALE, y * SCALE), words, fill=INK, font=self._font, anchor=anchor)


def _draw_panel(pen: _Pen, panel: Panel, left: float, top: float, y_label: str) -> None:
    points = [point for line in panel.lines.values() for point in line]
    highest = max(y for _, y in points) * 1.05
    first, last = min(x for x, _ in points), max(x for x, _ in points)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / ((last - first) or 1)
        return (
            left + LEFT + across * (PANEL_WIDTH - LEFT - RIGHT),
            top + TOP + (1 - y / highest) * (PANEL_HEIGHT - TOP - BOTTOM),
        )

    pen.text(left + LEFT, top + 6, panel.title)
    pen.text(left + LEFT, top + 22, y_label)
    for number in range(NUM_GRID_LINES + 1):
        y = highest * number / NUM_GRID_LINES
        pen.line([place(first, y), place(last, y)], GRID)
        pen.text(left + LEFT - 6, place(first, y)[1], f"{y:.1f}", "rm")
    for x in sorted({x for x, _ in points}):
        pen.text(place(x, 0)[0], place(x, 0)[1] + 6, f"{x:.0%}", "ma")
    for color, line in zip(COLORS, panel.lines.values(), strict=False):
        pen.line([place(*point) for point in line], color, 2)
        for point in line:
            pen.dot(*place(*point), color)


def _draw_legend(pen: _Pen, names: Sequence[str], top: float) -> None:
    for index, (color, name) in enumerate(zip(COLORS, names, strict=False)):
        left = LEFT + 150 * index
        pen.line([(left, top + 8), (left + 20, top + 8)], color, 2)
        pen.text(left + 26, top + 8, name, "lm")
