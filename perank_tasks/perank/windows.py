"""The sliding window's schedule: in, a list's length; out, the ranges to rank, back to front.

A window's ranked passages are put back in its range before the next window, `step` places
nearer to the front, is ranked; so the best `window - step` of each travel on (paper,
section 3.4: "sliding window", after RankGPT).
"""

from perank_tasks.errors import ConfigError


def schedule(candidates: int, *, window: int, step: int) -> list[tuple[int, int]]:
    """The ranges [start, end) to rank in turn for a list of `candidates` passages.

    The same ranges as the reference's loop, but for a list of exactly `window - step`,
    which that loop never ranks and which is one window here, and for ranges of a single
    passage, which need no ranking and are left out.

    Raises:
        ConfigError: not 2 <= window, or not 1 <= step <= window.
    """
    check(window, step)
    ranges = []
    start, end = candidates, candidates
    while start > 0:
        start = max(end - window, 0)
        if end - start > 1:
            ranges.append((start, end))
        end -= step
    return ranges


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
