"""The sliding window's schedule: in, a list's length; out, the ranges to rank, back to front.

A window's ranked passages are put back in its range before the next window, `step` places
nearer to the front, is ranked; so the best `window - step` of each travel on (paper,
section 3.4: "sliding window", after RankGPT).
"""

from perank_tasks.errors import ConfigError


def schedule(candidates: int, *, window: int, step: int) -> list[tuple[int, int]]:
    """The ranges [start, end) to rank in turn for a list of `candidates` passages.

    The same ranges as the reference's loop, but for a list of exactly `window - step`,
    which that loop never ranks and which is one window here. Fewer than two candidates
    need no ranking and give no range.

    Raises:
        ConfigError: not 2 <= window, or not 1 <= step <= window.
    """
    check(window, step)
    if candidates < 2:
        return []
    ranges = []
    end = candidates
    while True:
        start = max(end - window, 0)
        ranges.append((start, end))
        if start == 0:
            return ranges
        end -= step


def check(window: int, step: int) -> None:
    """Refuse a window or step that cannot rank a whole list.

    Raises:
        ConfigError: not 2 <= window, or not 1 <= step <= window.
    """
    if window < 2:
        raise ConfigError(f"window must be 2 or more passages, found {window}; the paper uses 20")
    if not 1 <= step <= window:
        raise ConfigError(
            f"step must be from 1 to the window's {window}, found {step}: "
            f"a longer step would skip passages. The paper uses 10 with a window of 20"
        )
