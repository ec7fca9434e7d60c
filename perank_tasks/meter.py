"""Measuring a stage: seconds, items, peak memory and the device, as one small dict."""

import resource
import sys
import time
from collections.abc import Iterable
from typing import Any

WORK = (
    "forward_passes",
    "flops",
    "load_seconds",
    "tokenise_seconds",
    "prefill_seconds",
    "decode_seconds",
)
SUMMED = ("seconds", "items", "tokens_in", "decode_steps", "numbers_repaired", *WORK)


class Meter:
    """Starts when made; `stats()` says what has been used since.

    Seconds are wall-clock. Peak memory is the process's, in bytes, since its start:
    the kernel keeps no other.
    """

    def __init__(self, device: str = "cpu"):
        self.device = device
        self.items = 0
        self.tokens_in = 0
        self.decode_steps = 0
        self.numbers_repaired = 0
        self.work: dict[str, float] = dict.fromkeys(WORK, 0)
        """What an LLM did, by the names in `WORK`; all 0 where none ran."""
        self._start = time.perf_counter()

    def stats(self) -> dict[str, Any]:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            "device": self.device,
            "seconds": round(time.perf_counter() - self._start, 6),
            "items": self.items,
            "tokens_in": self.tokens_in,
            "decode_steps": self.decode_steps,
            "numbers_repaired": self.numbers_repaired,
            **self.work,
            # Linux counts in KiB, macOS in bytes.
            "peak_memory_bytes": peak if sys.platform == "darwin" else peak * 1024,
        }


def total(stats: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Sum what shards measured; the peak is the largest, devices are listed."""
    stats = list(stats)
    return {
        "device": ", ".join(sorted({s["device"] for s in stats})),
        "peak_memory_bytes": max((s["peak_memory_bytes"] for s in stats), default=0),
        **{name: sum(s[name] for s in stats) for name in SUMMED},
    }
