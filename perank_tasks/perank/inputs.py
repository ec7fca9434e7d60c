"""What Python callers rank: a query and its passages in the shapes that people have them.

In, best first by the first stage: a mapping id → text, a sequence of texts, or a sequence of
(id, text). Out: a `CandidateList`. What is none of these is refused by name: a table has columns
where a mapping has ids, and a set has no order.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from perank_tasks.errors import ConfigError
from perank_tasks.perank.options import RankingOptions
from perank_tasks.support.lists import CandidateList

Passages = Mapping[Any, str] | Iterable[str] | Iterable[tuple[Any, str]]
"""Best first by the first stage; texts without ids are known by their places, 0 to n-1."""

SHAPES = "a mapping {id: text}, a sequence of texts, or a sequence of (id, text)"


class Embeds(Protocol):
    """Embeds what is not given; an engine does."""

    needs_query_embedding: bool

    def encode(self, texts: Sequence[str], *, queries: bool = False) -> np.ndarray:
        """(len(texts), d) float32."""


def candidate_list(
    engine: Embeds,
    options: RankingOptions,
    query: str,
    passages: Passages | None,
    embeddings: np.ndarray | None = None,
    query_embedding: np.ndarray | None = None,
    scores: np.ndarray | None = None,
) -> CandidateList:
    """One query's candidates; what the ranking needs and is not given is embedded.

    Raises:
        ConfigError: neither passages nor embeddings, not as many of one as of the other, another
            shape or something else than text, or options that want texts where there are none.
        CheckpointError: embedding is needed and the encoder cannot be used.
    """
    if passages is None and embeddings is None:
        raise ConfigError("rerank takes passages, embeddings or both: give at least one")
    if passages is None and options.passages != "embeddings":
        raise ConfigError(f"options want passages {options.passages!r}: give their texts")
    if not isinstance(query, str):
        raise ConfigError(f"the query is of type {_type(query)}, expected text")
    ids: Sequence[Any] = range(0 if embeddings is None else len(embeddings))
    texts = None
    if passages is not None:
        ids, texts = ids_and_texts(passages)
    if embeddings is not None and len(embeddings) != len(ids):
        raise ConfigError(f"{len(embeddings)} embeddings for {len(ids)} passages")
    if options.passages != "text":
        embeddings = engine.encode(texts or []) if embeddings is None else embeddings
        if query_embedding is None and engine.needs_query_embedding:
            query_embedding = engine.encode([query], queries=True)[0]
    return CandidateList(
        "",
        query,
        ids,
        scores=scores,
        vectors=embeddings,
        query_embedding=query_embedding,
        texts=texts,
    )


def paired(engine: Embeds, item: Any, place: int, options: RankingOptions) -> CandidateList:
    """The candidate list of (query, passages); errors as `candidate_list`.

    Args:
        place: the item's among others, for the message.
    """
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise ConfigError(
            f"list {place} is of type {_type(item)}, expected (query, passages) or a "
            f"CandidateList, where passages is {SHAPES}"
        )
    return candidate_list(engine, options, *item)


def ids_and_texts(passages: Passages) -> tuple[Sequence[Any], list[str]]:
    """The passages' ids and texts, in order.

    Raises:
        ConfigError: another shape, something else than text, or an id twice.
    """
    ids: Sequence[Any]
    if isinstance(passages, Mapping):
        ids, texts = list(passages), list(passages.values())
    elif isinstance(passages, Sequence | Iterator) and not isinstance(passages, str | bytes):
        items: list[Any] = list(passages)
        pairs = [item for item in items if isinstance(item, tuple | list)]
        if pairs and len(pairs) == len(items) and all(len(pair) == 2 for pair in pairs):
            ids, texts = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        else:
            ids, texts = range(len(items)), items
    else:
        raise ConfigError(
            f"passages is of type {_type(passages)}, expected {SHAPES}. Of columns, "
            "make dict(zip(ids, texts)) or list(texts)"
        )
    for name, text in zip(ids, texts, strict=True):
        if not isinstance(text, str):
            raise ConfigError(
                f"passage {name!r} is of type {_type(text)}, expected text: give {SHAPES}"
            )
    try:
        twice = [name for name, count in Counter(ids).items() if count > 1]
    except TypeError:
        raise ConfigError(
            "an id of a passage is no plain value: give texts or numbers as ids"
        ) from None
    if twice:
        raise ConfigError(f"passages have the id {twice[0]!r} twice: give every passage its own")
    return ids, texts


def _type(value: Any) -> str:
    """A type's name as its users know it: `pandas.DataFrame`."""
    kind = type(value)
    package = kind.__module__.partition(".")[0]
    return kind.__name__ if package == "builtins" else f"{package}.{kind.__name__}"
