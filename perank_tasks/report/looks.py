"""Looks: an arm's colour, marker and line, the same on every page and night.

In: arms' names. Out: a `Look` each. The built-in arms have places of their own; another's comes
from its name, and only where two names of one page meet there does the later one move on.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

BUILT_IN = ("bm25", "cosine", "fusion", "perank", "llm-off")

COLOURS = tuple(f"arm-{i}" for i in range(6))
"""CSS variables; `style.css` gives their values, which colour-blind people can tell apart."""

MARKERS = {"o": "●", "P": "✚", "*": "★", "<": "◀", "p": "⬟", "d": "⬧", "h": "⬢"}
"""{matplotlib's marker: the sign that looks like it}"""

LINES = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class Look:
    """How an arm is drawn."""

    colour: str
    marker: str
    sign: str
    line: str


# Six colours and seven markers have no common factor, so that every place is another pair.
_PLACES = len(COLOURS) * len(MARKERS)


def looks_of(names: Iterable[str]) -> dict[str, Look]:
    """{name: its look}, for the arms of one page."""
    names = set(names)
    places = {name: place for place, name in enumerate(BUILT_IN) if name in names}
    free = set(range(len(BUILT_IN), _PLACES))
    for name in sorted(names - places.keys()):
        wanted = int(sha256(name.encode()).hexdigest(), 16) % _PLACES
        after = sorted(free, key=lambda place: (place - wanted) % _PLACES)
        places[name] = after[0] if after else wanted
        free.discard(places[name])
    return {name: _look(place) for name, place in places.items()}


def _look(place: int) -> Look:
    marker, sign = list(MARKERS.items())[place % len(MARKERS)]
    return Look(COLOURS[place % len(COLOURS)], marker, sign, LINES[place % len(LINES)])
