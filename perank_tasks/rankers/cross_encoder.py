"""`cross-encoder`: a model that reads query and passage together and gives one score."""

from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import Field

from perank_tasks.errors import ConfigError, RankerError
from perank_tasks.models.find import ResolvedModel, content_hash, find_model, unpack_model
from perank_tasks.rankers.interface import Description, Models, RankerOptions, by_score
from perank_tasks.support.lists import CandidateList, RankedList, unranked


class CrossEncoderOptions(RankerOptions):
    """What a `cross-encoder` arm may set."""

    model: str = Field(
        description="A sentence-transformers CrossEncoder with one output: a folder or a hub id."
    )
    revision: str | None = Field(
        None, description="Of a hub id: a branch, tag or commit. Empty: the newest."
    )
    max_length: int = Field(
        512,
        ge=8,
        description="Tokens of query and passage that are read, the model's own maximum at most; "
        "passages that are cut are counted.",
    )
    batch_size: int = Field(32, ge=1, description="Pairs at once.")
    trust_remote_code: bool = Field(
        False,
        description="Run Python code that the model's repository brings, with all your rights: "
        "only if you trust its author.",
    )

    def describe(self, models: Models) -> Description:
        """The model by its content."""
        try:
            model = self.find()
        except ConfigError as error:
            return Description(texts=True, missing=str(error))
        return Description(texts=True, identity={"model_hash": _content(model)})

    def find(self) -> ResolvedModel:
        """The model; ConfigError where there is none."""
        return find_model(self.model, revision=self.revision)

    def load(self, models: Models) -> "CrossEncoderRanker":
        """As `RankerOptions.load`."""
        try:
            return CrossEncoderRanker(self, models)
        except ConfigError as error:
            raise RankerError(str(error)) from error


class CrossEncoderRanker:
    """A cross-encoder that ranks lists, each by itself."""

    def __init__(self, options: CrossEncoderOptions, models: Models):
        import torch

        from perank_tasks.models.cross_encoder import CrossEncoder

        torch.set_num_threads(models.threads)
        found = unpack_model(options.find(), cache=models.cache)
        self.encoder = CrossEncoder(
            found,
            max_length=options.max_length,
            batch_size=options.batch_size,
            trust_remote_code=options.trust_remote_code,
        )
        self.device = self.encoder.device
        self._description = {
            "model": options.model,
            "model_hash": _content(found),
            "max_length": self.encoder.max_length,
            "dtype": self.encoder.dtype,
        }

    def rank(self, lists: Iterable[CandidateList]) -> Iterator[RankedList]:
        """As `Ranker.rank`."""
        for candidates in lists:
            if candidates.problem:
                yield unranked(candidates, candidates.problem)
                continue
            texts = candidates.texts or ()
            lengths = self.encoder.lengths(candidates.query, texts)
            limit = self.encoder.max_length
            yield by_score(
                candidates,
                self.encoder.score(candidates.query, texts),
                texts_cut=int((lengths > limit).sum()),
                tokens_in=int(lengths.clip(max=limit).sum()),
            )

    def description(self) -> dict[str, Any]:
        """Model, length and precision."""
        return self._description

    def work(self) -> dict[str, float]:
        """Nothing is measured beyond tokens."""
        return {}


def _content(model: ResolvedModel) -> str:
    return model.revision or content_hash(model.folder)
