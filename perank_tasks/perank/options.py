"""How a list is ranked: the options of an arm that belong to the method, checked."""

from dataclasses import dataclass
from typing import Literal, get_args

from perank_tasks.errors import ConfigError

Decoding = Literal["constrained", "first-step", "free", "residual"]
PassageForm = Literal["embeddings", "both", "text"]
InitialOrder = Literal["given", "inverted", "random", "oracle"]

DECODING_HELP = {
    "constrained": "passages one by one, only those still to be ranked (the paper's)",
    "first-step": "one forward pass a window, ordered by the first step's logits",
    "free": "plain generation of [3] > [1] > …, repaired where numbers are missing or repeated",
    "residual": "the checkpoint's residual alone, its LLM switched off",
}
PASSAGES_HELP = {
    "embeddings": "one embedding token a passage (the paper's)",
    "both": "the embedding token and the text",
    "text": "the text alone; needs free decoding, since there is no embedding to put out",
}
ORDER_HELP = {
    "given": "the first stage's",
    "inverted": "the first stage's, worst first",
    "random": "shuffled by seed and query id",
    "oracle": "best judged first, to see what a perfect first stage would do: no system has it",
}


@dataclass(frozen=True)
class RankingOptions:
    """Window, decoding and form of a ranking.

    Attributes:
        window: passages ranked together, at least 2.
        step: places the window moves, 1 to `window`.
        decoding: see `DECODING_HELP`.
        top_k: only the first so many places have to be exact: constrained decoding then stops a
            window as soon as no place of these depends on the rest. None: all places.
        passages: what the prompt holds of a passage, see `PASSAGES_HELP`.
        passes: how often the window goes over the whole list.
        initial_order: the order that ranking starts from, see `ORDER_HELP`.
        seed: of the random initial order.

    Raises:
        ConfigError: an option out of range, or two that exclude each other.
    """

    window: int = 20
    step: int = 10
    decoding: Decoding = "constrained"
    top_k: int | None = None
    passages: PassageForm = "embeddings"
    passes: int = 1
    initial_order: InitialOrder = "given"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.window < 2:
            raise ConfigError(
                f"window must be 2 or more passages, found {self.window}; the paper uses 20"
            )
        if not 1 <= self.step <= self.window:
            raise ConfigError(
                f"step must be from 1 to the window's {self.window}, found {self.step}: a longer "
                f"step would skip passages. The paper uses 10 with a window of 20"
            )
        for name, value, known in (
            ("decoding", self.decoding, get_args(Decoding)),
            ("passages", self.passages, get_args(PassageForm)),
            ("initial_order", self.initial_order, get_args(InitialOrder)),
        ):
            if value not in known:
                raise ConfigError(f"{name} is {value!r}, expected one of {', '.join(known)}")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"top_k must be 1 or more, or None for all, found {self.top_k}")
        if self.top_k is not None and self.decoding != "constrained":
            raise ConfigError(
                f"top_k stops constrained decoding early; {self.decoding} decoding has nothing to "
                f"stop: leave top_k out"
            )
        if self.passes < 1:
            raise ConfigError(f"passes must be 1 or more, found {self.passes}")
        if self.passages != "embeddings" and self.decoding == "residual":
            raise ConfigError(
                f"decoding 'residual' has no LLM to read texts, and passages is {self.passages!r}: "
                f"use passages 'embeddings'"
            )
        if self.passages == "text" and self.decoding != "free":
            raise ConfigError(
                f"passages 'text' puts no embedding into the prompt, so {self.decoding} decoding "
                f"has none to put out: use decoding 'free', or passages 'both'"
            )

    @property
    def reads_a_prompt(self) -> bool:
        """Whether the LLM is asked at all."""
        return self.decoding != "residual"

    @property
    def answers_in_numbers(self) -> bool:
        """Whether the LLM writes numbers of passages instead of putting out their embeddings."""
        return self.decoding == "free"
