"""`cross-encoder`: a model that reads query and passage together and gives one score."""

from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import Field

from perank_tasks.models.find import find_model, unpack_model
from perank_tasks.rankers.interface import ModelOptions, Models, Ranker, by_score
from perank_tasks.support.lists import CandidateList, RankedList, unranked


class CrossEncoderOptions(ModelOptions):
    """What a `cross-encoder` arm may set."""

    model: str
    """A sentence-transformers CrossEncoder with one output: a folder or a hub id."""
    max_length: int = Field(512, ge=8)
    """Tokens of query and passage that are read, the model's own maximum at most; passages that
    are cut are counted."""
    batch_size: int = Field(32, ge=1)
    """Pairs at once."""

    def load(self, models: Models) -> "CrossEncoderRanker":
        """As `RankerOptions.load`."""
        return CrossEncoderRanker(self, models)


class CrossEncoderRanker(Ranker):
    """A cross-encoder that ranks lists, each by itself."""

    def __init__(self, options: CrossEncoderOptions, models: Models):
        import torch

        from perank_tasks.models.cross_encoder import CrossEncoder

        torch.set_num_threads(models.threads)
        found = find_model(options.model, revision=options.revision)
        self.encoder = CrossEncoder(
            unpack_model(found, cache=models.cache), options.max_length, options.batch_size
        )
        self.device = self.encoder.device

    def rank(self, lists: Iterable[CandidateList]) -> Iterator[RankedList]:
        """As `Ranker.rank`."""
        limit = self.encoder.max_length
        for candidates in lists:
            if candidates.problem:
                yield unranked(candidates, candidates.problem)
                continue
            texts = candidates.texts or ()
            lengths = self.encoder.lengths(candidates.query, texts)
            yield by_score(
                candidates,
                self.encoder.score(candidates.query, texts),
                texts_cut=int((lengths > limit).sum()),
                tokens_in=int(lengths.clip(max=limit).sum()),
            )

    def description(self) -> dict[str, Any]:
        """Length and precision; the model is in the arm's settings."""
        return {"max_length": self.encoder.max_length, "dtype": self.encoder.dtype}
