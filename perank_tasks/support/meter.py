"""Measuring a stage: seconds, items, peak memory and the device, as one small dict."""

import resource
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

PHASES = ("load_seconds", "tokenise_seconds", "prefill_seconds", "decode_seconds")
WORK = ("forward_passes", "flops", *PHASES)
SUMMED = ("items", "tokens_in", "decode_steps", "numbers_repaired", *WORK)


class Meter:
    """Starts when made; `stats()` says what has been used since.

    Seconds are wall-clock. Peak memory is the whole process's, in bytes, since the last meter was
    made; where the kernel is not Linux, since the process's start.
    """

    def __init__(self, device: str = "cpu"):
        self.device = device
        self.items = 0
        self.tokens_in = 0
        self.decode_steps = 0
        self.numbers_repaired = 0
        self.work: dict[str, float] = dict.fromkeys(WORK, 0)
        """What an LLM did, by the names in `WORK`; all 0 where none ran."""
        _forget_peak()
        self._began = time.time()
        self._start = time.perf_counter()

    def stats(self) -> dict[str, Any]:
        return {
            "device": self.device,
            "began": round(self._began, 6),
            "seconds": round(time.perf_counter() - self._start, 6),
            "items": self.items,
            "tokens_in": self.tokens_in,
            "decode_steps": self.decode_steps,
            "numbers_repaired": self.numbers_repaired,
            **self.work,
            "peak_memory_bytes": _peak(),
        }


def _forget_peak() -> None:
    """Have the kernel count from here: else every stage of a process would have the first's."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def _peak() -> int:
    with suppress(OSError, StopIteration):
        # getrusage counts what the parent had when it started this process.
        rows = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return int(next(row for row in rows if row.startswith("VmHWM")).split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def total(stats: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Sum what shards measured; the peak is that of the largest process, devices are listed.

    Seconds are those in which any shard was at work, from the first one's start to the last one's
    end without the time between: side by side counts once. Phases are their shares of these.
    """
    stats = sorted(stats, key=lambda s: s["began"])
    seconds, end = 0.0, 0.0
    for shard in stats:
        ended = shard["began"] + shard["seconds"]
        seconds += max(0.0, ended - max(end, shard["began"]))
        end = max(end, ended)
    share = seconds / (sum(s["seconds"] for s in stats) or 1)
    summed = {name: sum(s[name] for s in stats) for name in SUMMED}
    return {
        "device": ", ".join(sorted({s["device"] for s in stats})),
        "began": min((s["began"] for s in stats), default=0),
        "seconds": round(seconds, 6),
        "peak_memory_bytes": max((s["peak_memory_bytes"] for s in stats), default=0),
        **summed,
        **{name: round(summed[name] * share, 6) for name in PHASES},
    }
