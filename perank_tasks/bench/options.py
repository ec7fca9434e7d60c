"""What `perank bench rerank` and `perank bench pipeline` may be asked for."""

from typing import Self

from pydantic import Field, model_validator

from perank_tasks.config import Options

EMBEDDED = 10_000
"""Passages of the largest corpus that `perank bench pipeline` embeds."""


class BenchOptions(Options):
    """What to measure, of which collection, by which checkpoints."""

    collection: str | None = None
    """Collection spec; its run=FILE gives the candidates. Empty: PERANK_COLLECTION."""
    queries: int = Field(12, ge=1)
    """Queries at most, in blocks of --batch."""
    batch: int = Field(6, ge=1)
    """Queries ranked together."""
    depth: int = Field(100, ge=2)
    """Candidates a query."""
    window: int = 20
    """Passages the LLM ranks at once."""
    step: int = 10
    """How far the window moves."""
    top_k: int = Field(10, ge=1)
    """Ranks that early stopping keeps exact."""
    checkpoint: str | None = None
    """One with the reference's prompt. Empty: SmolLM2-135M, untrained."""
    compact_checkpoint: str | None = None
    """One with a compact prompt and the same encoder. Empty: as above."""
    device: str = "auto"
    """auto, cpu or cuda."""


class PipelineOptions(Options):
    """Which corpora a night is run over."""

    sizes: tuple[int, ...] = (1000, 10_000, 100_000)
    """Passages of each corpus, ascending."""
    queries: int = Field(1000, ge=1)
    """Queries to retrieve and rank for."""
    source: str = "pydocs"
    """Collection whose sentences, drawn anew, make the corpora."""

    @model_validator(mode="after")
    def _are_sizes_that_can_be_measured(self) -> Self:
        ascending = list(self.sizes) == sorted(set(self.sizes))
        if not self.sizes or not ascending or not 100 <= self.sizes[0] <= EMBEDDED:
            raise ValueError(
                f"--sizes is {','.join(map(str, self.sizes))!r}; expected numbers of passages, "
                f"ascending, none twice, as in 1000,10000,100000: the first from 100 to {EMBEDDED},"
                " since larger corpora repeat the texts of one that was embedded"
            )
        return self
