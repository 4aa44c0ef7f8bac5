"""Curves over time as one SVG file, with nothing but text. Knows numbers and names only."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

Curve = Sequence[tuple[float, float]]  # (seconds, value)

WIDTH, HEIGHT = 460, 200
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 30, 26
COLOURS = ("#1f6fb4", "#d1622b", "#3a8f4d", "#8a56b0", "#7a7a7a")
MOST_POINTS = 800


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    curves: dict[str, Curve]


def svg(title: str, panels: Sequence[Panel], marks: Sequence[float] = ()) -> str:
    """Two panels side by side; `marks` are moments, drawn as thin lines in each."""
    rows = (len(panels) + 1) // 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * WIDTH}" height="{rows * HEIGHT + 40}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="12" y="24" font-size="15">{escape(title)}</text>',
    ]
    for number, panel in enumerate(panels):
        x, y = number % 2 * WIDTH, number // 2 * HEIGHT + 40
        parts += [f'<g transform="translate({x},{y})">', *_panel(panel, marks), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel, marks: Sequence[float]) -> list[str]:
    points = [point for curve in panel.curves.values() for point in curve]
    last_s = max((at for at, _ in points), default=1.0) or 1.0
    top = _round_up(max((value for _, value in points), default=1.0))
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def across(at: float) -> float:
        return LEFT + wide * at / last_s

    def down(value: float) -> float:
        return TOP + high * (1 - value / top)

    parts = [f'<text x="{LEFT}" y="14" font-weight="bold">{escape(panel.title)}</text>']
    for step in range(5):
        value = top * step / 4
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{down(value):.1f}" y2="{down(value):.1f}" stroke="#e4e4e4"/>'
            f'<text x="{LEFT - 6}" y="{down(value) + 4:.1f}" text-anchor="end" fill="#555">{value:g}</text>'
        )
    parts += [
        f'<line x1="{across(at):.1f}" x2="{across(at):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#f2dede"/>'
        for at in marks
        if at <= last_s
    ]
    for third in (1, 2):
        at = across(last_s * third / 3)
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#bbb"/>')
    parts.append(
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end" fill="#555">{last_s / 60:.1f} min</text>'
    )
    for number, (name, curve) in enumerate(panel.curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        thin = curve[:: max(1, len(curve) // MOST_POINTS)]
        path = " ".join(f"{across(at):.1f},{down(value):.1f}" for at, value in thin)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(f'<text x="{LEFT + 95 * number}" y="26" fill="{colour}">{escape(name)}</text>')
    return parts


def _round_up(value: float) -> float:
    """The distance of two grid lines: 1, 2, 4 or 5 times a power of ten."""
    size = 1.0
    while size * 10 <= value:
        size *= 10
    return next((size * step for step in (1, 2, 4, 5, 10) if size * step >= value), size * 10)
