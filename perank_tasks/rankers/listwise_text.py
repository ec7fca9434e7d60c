"""`listwise-text`: the uncompressed listwise reranker, an LLM that reads the passages' texts.

What PE-Rank's one embedding a passage is held against: the same windows and engine, texts in the
prompt, an answer in numbers. Any causal LLM in Llama's or Mistral's layout does, as it is.
"""

from dataclasses import replace
from typing import Literal

from perank_tasks.rankers.interface import Description, ModelOptions, Models
from perank_tasks.rankers.perank import ListwiseOptions, ListwiseRanker


class ListwiseTextOptions(ModelOptions, ListwiseOptions):
    """What a `listwise-text` arm may set: what a `perank` arm may, of texts."""

    model: str
    """A Llama or Mistral with its head, as safetensors: an embedded name, a folder or a hub id."""
    prompt: Literal["released-v1", "compact-v1"] = "released-v1"
    """released-v1: RankGPT's, as PE-Rank's authors use it; compact-v1: ours, shorter."""
    decoding: Literal["free"] = "free"
    """Numbers of passages, [3] > [1] > …, repaired where some are missing or repeated."""
    passages: Literal["text"] = "text"
    """Texts alone; each is cut at 256 tokens, which is counted."""

    def describe(self, models: Models) -> Description:
        """The LLM by its content."""
        return replace(super().describe(models), grades=self.initial_order == "oracle")

    def load(self, models: Models) -> ListwiseRanker:
        """As `RankerOptions.load`."""
        llm = {"revision": self.revision, "llm_prompt": self.prompt}
        return ListwiseRanker(self, self.model, models, **llm)
