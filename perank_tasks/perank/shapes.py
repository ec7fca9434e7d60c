"""Shapes of forward passes: in, a checkpoint's size and a device; out, rows and padded lengths.

What a list's logits are to the last bit depends on the shapes of the passes that compute them.
So shapes follow from checkpoint, options and device, and a list's place among them from that list
alone: how many others are ranked beside it, in which order, in how many shards, changes nothing.

On a GPU a pass always has as many rows as its padded length allows; rows that are missing are
dummies. On a CPU a row's products are the same whatever stands beside it (the tests check it), and
rows and padding are what they have to be.
"""

from dataclasses import dataclass, replace

import psutil
import torch

from perank_tasks.perank.llm import Llm

# Rows of a decoding pass, where memory allows: on two cores nothing is gained beyond; a GPU decodes
# as many tokens in the time of one.
MAX_ROWS = {"cpu": 32, "cuda": 256}

# Tokens of one pass over prompts. On a CPU more bring nothing; a GPU they fill.
PREFILL_TOKENS = {"cpu": 2_048, "cuda": 8_192}

# What keys and values may take: of a GPU's memory beside the weights, of a machine's free memory.
CACHE_SHARE = {"cpu": 0.25, "cuda": 0.5}
MAX_CPU_CACHE_BYTES = 2**30

# Beyond that, rows on a GPU are a multiple of this.
ROWS_STEP = 8


@dataclass(frozen=True, slots=True)
class Shapes:
    """Rows and lengths of the passes of one model on one device.

    Attributes:
        is_fixed: whether missing rows are filled with dummies.
        max_rows: of a decoding pass.
        prefill_tokens: of a pass over prompts, padding included.
        cache_bytes: what keys and values may take together.
        token_bytes: what those of one token take.
    """

    is_fixed: bool
    max_rows: int
    prefill_tokens: int
    cache_bytes: int
    token_bytes: int

    @classmethod
    def of(cls, llm: Llm, max_rows: int | None) -> "Shapes":
        """Those of an LLM where it is; `max_rows` of None: the device's."""
        kind = llm.device.type
        if kind == "cuda":
            # Not what is free: that depends on what else runs.
            room = torch.cuda.get_device_properties(llm.device).total_memory - llm.weight_bytes()
            budget = int(room * CACHE_SHARE[kind])
        else:
            available = int(psutil.virtual_memory().available * CACHE_SHARE[kind])
            budget = min(available, MAX_CPU_CACHE_BYTES)
        return cls(
            is_fixed=kind == "cuda",
            max_rows=max_rows or MAX_ROWS[kind],
            prefill_tokens=PREFILL_TOKENS[kind],
            cache_bytes=max(0, budget),
            token_bytes=llm.cache_bytes(1),
        )

    def description(self) -> dict[str, int] | None:
        """What rankings depend on, for provenance; None where they depend on no shape."""
        if not self.is_fixed:
            return None
        return {
            "rows": self.max_rows,
            "prefill_tokens": self.prefill_tokens,
            "cache_bytes": self.cache_bytes,
        }

    def halved(self) -> "Shapes | None":
        """The next smaller ones; None where there are none."""
        if self.max_rows == 1:
            return None
        return replace(
            self,
            max_rows=self.max_rows // 2,
            prefill_tokens=max(256, self.prefill_tokens // 2),
            cache_bytes=self.cache_bytes // 2,
        )

    def cache_length(self, tokens: int) -> int:
        """Positions of the cache for a prompt and its answer of `tokens` tokens."""
        return _rung(tokens, steps=4, least=64)

    def rows(self, cache_length: int) -> int:
        """Rows of a decoding pass over a cache of this length."""
        fitting = self.cache_bytes // (self.token_bytes * cache_length)
        if self.is_fixed and fitting > ROWS_STEP:
            fitting -= fitting % ROWS_STEP
        return max(1, min(self.max_rows, fitting))

    def prefill_length(self, tokens: int) -> int:
        """What `tokens` new tokens of a prompt are padded to."""
        return _rung(tokens, steps=8, least=32) if self.is_fixed else tokens

    def prefill_rows(self, prefill_length: int) -> int:
        """Rows of a pass over prompts of this padded length."""
        return max(1, min(self.max_rows, self.prefill_tokens // prefill_length))


def _rung(tokens: int, *, steps: int, least: int) -> int:
    """The next length of a ladder that has `steps` rungs an octave, at least `least` apart."""
    step = max(least, (1 << (tokens.bit_length() - 1)) // steps)
    return -(-tokens // step) * step
