"""A small line of the last values as inline SVG. Its colour and size are the style sheet's."""

import html
from collections.abc import Sequence

HEIGHT = 20


def sparkline(values: Sequence[float | None], label: str, places: int) -> str:
    """`values`: the newest last, at the right end of `places` places; None leaves a gap. `label` says what they are."""
    known = [value for value in values if value is not None]
    peak = max(known, default=0.0)
    first = places - len(values)
    pieces: list[list[str]] = [[]]
    for place, value in enumerate(values):
        if value is None:
            pieces.append([])
        else:
            height = HEIGHT - 1 - (HEIGHT - 2) * (value / peak if peak else 0.0)
            pieces[-1].append(f"{first + place},{height:.1f}")
    lines = "".join(f'<polyline points="{" ".join(piece)}"/>' for piece in pieces if len(piece) > 1)
    text = html.escape(label)
    return (
        f'<svg class="spark" viewBox="0 0 {places - 1} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{text}"><title>{text}</title>{lines}</svg>'
    )
