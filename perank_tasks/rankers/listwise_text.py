"""`listwise-text`: the uncompressed listwise reranker, an LLM that reads the passages' texts.

What PE-Rank's one embedding a passage is held against: the same windows and engine, texts in the
prompt, an answer in numbers. Any causal LLM in Llama's or Mistral's layout does, as it is.
"""

from typing import Literal

from perank_tasks.errors import CheckpointError, ConfigError, RankerError
from perank_tasks.models.find import content_hash, find_model
from perank_tasks.rankers.interface import Description, Models
from perank_tasks.rankers.perank import ListwiseOptions, ListwiseRanker


class ListwiseTextOptions(ListwiseOptions):
    """What a `listwise-text` arm may set: what a `perank` arm may, of texts."""

    model: str
    """A Llama or Mistral with its head, as safetensors: an embedded name, a folder or a hub id."""
    revision: str | None = None
    """Of a hub id: a branch, tag or commit. Empty: the newest."""
    prompt: Literal["released-v1", "compact-v1"] = "released-v1"
    """released-v1: RankGPT's, as PE-Rank's authors use it; compact-v1: ours, shorter."""
    decoding: Literal["free"] = "free"
    """Numbers of passages, [3] > [1] > …, repaired where some are missing or repeated."""
    passages: Literal["text"] = "text"
    """Texts alone; each is cut at 256 tokens, which is counted."""

    def describe(self, models: Models) -> Description:
        """The LLM by its content."""
        grades = self.initial_order == "oracle"
        try:
            found = find_model(self.model, revision=self.revision)
        except ConfigError as error:
            return Description(texts=True, grades=grades, missing=str(error))
        content = found.revision or content_hash(found.folder)
        return Description(texts=True, grades=grades, identity={"model_hash": content})

    def load(self, models: Models) -> ListwiseRanker:
        """As `RankerOptions.load`."""
        try:
            return ListwiseRanker(
                self, self.model, models, revision=self.revision, llm_prompt=self.prompt
            )
        except (CheckpointError, ConfigError) as error:
            raise RankerError(str(error)) from error
