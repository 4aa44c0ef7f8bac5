"""Groups of horizontal bars as one SVG file, with nothing but text. Knows numbers and names only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LEFT, UNTIL = 860, 110, 760  # of the image; of the begin of the bars; of the end of the longest bar
BAR, GAP, TITLE = 13, 12, 34
SMALL = 'font-size="10" paint-order="stroke" stroke="#fff" stroke-width="3"'  # legible across a line


@dataclass(frozen=True, slots=True)
class Bar:
    series: str
    value: float
    text: str


@dataclass(frozen=True, slots=True)
class Section:
    """One group of bars. `longest` is the value that fills the width: longer bars are cut, their text is not. `mark`: a
    value with a line through it."""

    title: str
    groups: Mapping[str, Sequence[Bar]]
    longest: float
    mark: float | None = None


def svg(sections: Sequence[Section], colours: Mapping[str, str]) -> str:
    """The whole file. `colours` are those of the series; the legend has the series that have a bar."""
    used = {bar.series for section in sections for group in section.groups.values() for bar in group}
    parts = _legend([series for series in colours if series in used], colours)
    y = 40
    for section in sections:
        rows, y = _section(section, y, colours)
        parts += rows
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" font-family="sans-serif" '
            'font-size="12" fill="#444">',
            '<rect width="100%" height="100%" fill="#fff"/>',
            *parts,
            "</svg>\n",
        )
    )


def _legend(names: Sequence[str], colours: Mapping[str, str]) -> list[str]:
    parts, x = [], LEFT
    for name in names:
        parts.append(f'<rect x="{x}" y="12" width="11" height="11" fill="{colours[name]}"/>')
        parts.append(f'<text x="{x + 16}" y="22">{escape(name)}</text>')
        x += 36 + 8 * len(name)
    return parts


def _section(section: Section, y: int, colours: Mapping[str, str]) -> tuple[list[str], int]:
    """The elements of a section, and the height at which the next section begins."""
    parts = [f'<text x="{LEFT}" y="{y + 20}" font-weight="bold">{escape(section.title)}</text>']
    texts: list[str] = []
    top = y = y + TITLE
    per_unit = (UNTIL - LEFT) / section.longest
    for name, bars in section.groups.items():
        middle = y + BAR * len(bars) / 2 + 4
        parts.append(f'<text x="{LEFT - 10}" y="{middle:.0f}" text-anchor="end">{escape(name)}</text>')
        for bar in bars:
            cut = bar.value > section.longest
            wide = max(0.0, min(bar.value, section.longest) * per_unit)
            parts.append(
                f'<rect x="{LEFT}" y="{y}" width="{wide:.1f}" height="{BAR - 2}" fill="{colours[bar.series]}"/>'
            )
            text = f"{bar.text} \u2192" if cut else bar.text
            texts.append(f'<text x="{LEFT + wide + 5:.1f}" y="{y + BAR - 3}" {SMALL}>{escape(text)}</text>')
            y += BAR
        y += GAP
    if section.mark is not None:
        x = LEFT + section.mark * per_unit
        parts.append(
            f'<line x1="{x:.1f}" y1="{top - 4}" x2="{x:.1f}" y2="{y - GAP + 2}" stroke="#222" stroke-dasharray="3 3"/>'
        )
    return [*parts, *texts], y + GAP
