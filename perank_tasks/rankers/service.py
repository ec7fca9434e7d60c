"""`service`: an HTTP server that reranks; in, a list's query and texts; out, their scores.

Two dialects of `POST URL` are spoken: `cohere`, as Cohere, Jina, vLLM and Infinity do, and `tei`,
Text Embeddings Inference's. A list whose request fails keeps its first-stage order and says why;
`rankers/service_client.py` says what is retried.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
from pydantic import (
    AliasChoices,
    BaseModel,
    Field,
    FiniteFloat,
    HttpUrl,
    TypeAdapter,
    ValidationError,
    field_validator,
)

from perank_tasks.errors import ConfigError, MalformedError, RankerError
from perank_tasks.rankers.interface import Description, Models, Ranker, RankerOptions, by_score
from perank_tasks.support.lists import CandidateList, RankedList, unranked

DOCUMENTS = {"cohere": 1000, "tei": 32}
"""Texts a request, at most: Cohere's limit, and the default of TEI's --max-client-batch-size."""

GIVE_UP_AFTER = 5
"""Lists in a row that the service was not there for: the others are not asked for any more. Each
has been retried for some time, and a night of thousands would be retried until the morning."""


class ServiceOptions(RankerOptions):
    """What a `service` arm may set."""

    url: HttpUrl
    """The whole address, such as http://127.0.0.1:8000/rerank."""
    dialect: Literal["cohere", "tei"] = "cohere"
    """cohere: Cohere, Jina, vLLM, Infinity; tei: Text Embeddings Inference."""
    model: str | None = None
    """Its name, as the service knows it (cohere)."""
    key_variable: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """The environment variable that holds the key, sent as a bearer token. In a night under Airflow
    the password of the connection of that name, in lower case, does as well."""
    timeout_s: float = Field(30.0, gt=0)
    """Seconds that one request may take in all."""
    retries: int = Field(4, ge=0, le=20)
    """Of a request that the service is not there for, or too busy."""
    concurrency: int = Field(4, ge=1, le=64)
    """Lists asked for at once."""
    documents: int | None = Field(None, ge=1)
    """Texts a request. Empty: 1000 (cohere) or 32 (tei)."""

    @field_validator("url", mode="before")
    @classmethod
    def _url_holds_no_secret(cls, url: Any) -> Any:
        if set("@?") & set(str(url)):
            # A ValueError would be shown with the address.
            raise ConfigError(
                "  url: the address is kept in tables and must hold no user, password or query: "
                "give the key in an environment variable, key_variable"
            )
        return url

    def describe(self, models: Models) -> Description:
        """It reads texts; what model answers there is not known."""
        return Description(texts=True)

    def load(self, models: Models) -> "ServiceRanker":
        """As `RankerOptions.load`; nothing is asked of the service yet."""
        key = os.environ.get(self.key_variable or "", "").strip()
        if self.key_variable and not (key and key.isascii() and key.isprintable()):
            raise RankerError(
                f"The environment variable {self.key_variable} holds no key for {self.url} "
                "(printable ASCII). Set it or, under Airflow, add the connection "
                f"{self.key_variable.lower()!r} with the key as its password."
            )
        return ServiceRanker(self, key)


class _Result(BaseModel):
    """One text's in an answer."""

    index: int = Field(strict=True)
    score: FiniteFloat = Field(
        strict=True, validation_alias=AliasChoices("relevance_score", "score")
    )


_RESULTS = TypeAdapter(list[_Result])


class ServiceRanker(Ranker):
    """A service that ranks lists, several at once, in order."""

    device = "service"

    def __init__(self, options: ServiceOptions, key: str):
        from perank_tasks.rankers.service_client import Client

        self.options = options
        self.client = Client(str(options.url), key, options.timeout_s, options.retries)
        self._failed = 0
        """Lists in a row that the service was not there for, about: threads count it together."""
        self._why = ""

    def rank(self, lists: Iterable[CandidateList]) -> Iterator[RankedList]:
        """As `Ranker.rank`; a few lists are read ahead."""
        waiting: deque[Future[RankedList]] = deque()
        with ThreadPoolExecutor(self.options.concurrency) as pool:
            for candidates in lists:
                waiting.append(pool.submit(self._rank, candidates))
                if len(waiting) > 2 * self.options.concurrency:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def description(self) -> dict[str, Any]:
        """Where, and what was asked for; never the key."""
        said = {"url", "dialect", "model"}
        return self.options.model_dump(mode="json", include=said, exclude_none=True)

    def _rank(self, candidates: CandidateList) -> RankedList:
        if candidates.problem:
            return unranked(candidates, candidates.problem)
        if self._failed >= GIVE_UP_AFTER:
            reason = f"{self._why}; {GIVE_UP_AFTER} lists in a row, and it was not asked for more"
            return unranked(candidates, reason, is_outage=True)
        try:
            scores = self._scores(candidates)
        except RankerError as error:
            is_malformed = isinstance(error, MalformedError)
            self._failed = 0 if is_malformed else self._failed + 1
            self._why = str(error)
            return unranked(candidates, str(error), is_malformed=is_malformed, is_outage=True)
        self._failed = 0
        return by_score(candidates, scores)

    def _scores(self, candidates: CandidateList) -> np.ndarray:
        """(n,), asked for in as many requests as it takes."""
        texts = list(candidates.texts or ())
        size = self.options.documents or DOCUMENTS[self.options.dialect]
        scores = np.zeros(len(texts))
        for first in range(0, len(texts), size):
            some = texts[first : first + size]
            answer = self.client.post(self._request(candidates.query, some))
            scores[first : first + size] = self._read(answer, len(some))
        return scores

    def _request(self, query: str, texts: list[str]) -> dict[str, Any]:
        if self.options.dialect == "tei":
            # Raw: a sigmoid would tie what it saturates on.
            return {"query": query, "texts": texts, "raw_scores": True, "truncate": True}
        model = {"model": self.options.model} if self.options.model else {}
        return {**model, "query": query, "documents": texts, "top_n": len(texts)}

    def _read(self, answer: Any, count: int) -> list[float]:
        """The scores of an answer in the order of its texts.

        Raises:
            MalformedError: not every index once with a finite score.
        """
        if self.options.dialect == "cohere":
            answer = answer.get("results") if isinstance(answer, dict) else None
        try:
            scores = {result.index: result.score for result in _RESULTS.validate_python(answer)}
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            what = f"answered results {where}: {first['msg']}, found {first['input']}"
            raise MalformedError(self.client.words(what)) from None
        if len(answer) != count or scores.keys() != set(range(count)):
            indices = ", ".join(str(result["index"]) for result in answer[:10])
            raise MalformedError(
                f"{self.options.url} answered {len(answer)} results for {count} texts, and not "
                f"every index once: {indices}"
            )
        return [scores[index] for index in range(count)]
