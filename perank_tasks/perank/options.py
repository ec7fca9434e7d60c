"""How lists are ranked: the options of an arm that belong to the method, checked."""

from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from perank_tasks.config import Options
from perank_tasks.errors import ConfigError

Decoding = Literal["constrained", "first-step", "free", "residual"]
PassageForm = Literal["embeddings", "both", "text"]
InitialOrder = Literal["given", "inverted", "random", "oracle"]


class RankingOptions(Options):
    """Window, decoding and form of a ranking; `RankingOptions()` is the paper's.

    Raises:
        ConfigError: an option out of range, or two that exclude each other.
    """

    window: int = Field(20, ge=2)
    """Passages the LLM ranks at once."""
    step: int = Field(10, ge=1)
    """How far the window moves; at most the window."""
    decoding: Decoding = "constrained"
    """How a window's order is put out. constrained: passages one by one, only those still to be
    ranked (the paper's); first-step: one forward pass a window, ordered by the first step's logits;
    free: plain generation of [3] > [1] > …, repaired where numbers are missing or repeated;
    residual: the checkpoint's residual alone, its LLM switched off."""
    top_k: int | None = Field(None, ge=1)
    """Only so many first places need to be exact: constrained decoding then stops a window early
    (10 is about twice as fast to decode). Empty: all."""
    passages: PassageForm = "embeddings"
    """What is read of a passage. embeddings: one embedding token (the paper's); both: the embedding
    token and the text; text: the text alone, which needs free decoding, since there is no embedding
    to put out."""
    passes: int = Field(1, ge=1, le=10)
    """How often the window goes over the whole list."""
    initial_order: InitialOrder = "given"
    """The order that ranking starts from. given: the first stage's; inverted: the same, worst
    first; random: shuffled by seed and query id; oracle: best judged first, to see what a perfect
    first stage would do: no system has it."""
    block: int | None = Field(None, ge=1, le=1024)
    """Lists that the LLM ranks together at most. On a GPU logits depend on it in their last bits,
    and so may rankings: another value is another arm. 1 answers a single query soonest, in about
    half the time: the order of a step is a draft of those behind it, checked in one pass. Empty:
    256 on a GPU, 32 on a CPU, fewer where memory is short."""
    order_seed: int = Field(0, ge=0)
    """Seed of a random initial order."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(self.explain(error)) from None

    @model_validator(mode="after")
    def _step_skips_no_passages(self) -> Self:
        if self.step > self.window:
            raise ValueError(
                f"step must be from 1 to the window's {self.window}, found {self.step}: a longer "
                "step would skip passages. The paper uses 10 with a window of 20"
            )
        return self

    @model_validator(mode="after")
    def _decoding_fits(self) -> Self:
        if self.top_k is not None and self.decoding != "constrained":
            raise ValueError(
                f"top_k stops constrained decoding early; {self.decoding} decoding has nothing to "
                "stop: leave top_k out"
            )
        if self.passages != "embeddings" and self.decoding == "residual":
            raise ValueError(
                f"decoding 'residual' has no LLM to read texts, and passages is {self.passages!r}: "
                "use passages 'embeddings'"
            )
        if self.passages == "text" and self.decoding != "free":
            raise ValueError(
                f"passages 'text' puts no embedding into the prompt, so {self.decoding} decoding "
                "has none to put out: use decoding 'free', or passages 'both'"
            )
        return self

    @property
    def reads_a_prompt(self) -> bool:
        """Whether the LLM is asked at all."""
        return self.decoding != "residual"

    @property
    def answers_in_numbers(self) -> bool:
        """Whether the LLM writes numbers of passages instead of putting out their embeddings."""
        return self.decoding == "free"
