"""The engine against its plain twin: one window at a time, no batch, no padding, no cache.

The twin follows the paper and the reference's loop in the most literal way. Float sums differ
in the last bits between the two, so orders are compared where at every step of the twin the
best two logits differ, relatively, by more than 1e-5.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from perank_tasks.perank import PERank, RerankRequest
from perank_tasks.perank.prompt import PASSAGE_TOKEN, QUERY_TOKEN
from tests.perank.tiny import EMBEDDING_SIZE, write_own, write_published

CLEAR_GAP = 1e-5
QUERIES = ["how long does a flea live", "define visceral", "", "cost of interior concrete floors?"]


@dataclass
class Twin:
    """Ranks like `engine`, slowly; `gap` is the least relative gap of the best two logits."""

    engine: PERank
    gap: float = field(default=float("inf"))

    @torch.inference_mode()
    def rerank(
        self, request: RerankRequest, window: int, step: int, decode_steps: int | None
    ) -> list[int]:
        order = list(range(len(request.passage_ids)))
        start, end = len(order) - window, len(order)
        if start + step == 0:  # exactly window - step passages: the reference never ranks them
            return self.window(request, order, decode_steps)
        while end > 0 and start + step != 0:
            start = max(start, 0)
            order[start:end] = self.window(request, order[start:end], decode_steps)
            start, end = start - step, end - step
        return order

    def window(
        self, request: RerankRequest, members: list[int], decode_steps: int | None
    ) -> list[int]:
        model, prompts = self.engine.model, self.engine.prompts
        passages = model.projector(torch.from_numpy(request.embeddings[members]))
        query = None
        if request.query_embedding is not None:
            query = model.projector(torch.from_numpy(request.query_embedding))
        ids = prompts.build(prompts.prepare(request.query), len(members)).input_ids
        inputs = self.fill(ids, passages, query)
        left = list(range(len(members)))
        ranked: list[int] = []
        while left and len(ranked) < (decode_steps or len(members)):
            hidden = model.body(inputs_embeds=inputs[None], use_cache=False).last_hidden_state
            logits = passages[left] @ hidden[0, -1]
            if model.has_residual:
                assert query is not None
                logits = model.residual_t * logits + model.residual_b * (passages[left] @ query)
            if len(left) > 1:
                first, second = logits.topk(2).values.tolist()
                self.gap = min(self.gap, (first - second) / max(abs(first), abs(second), 1e-30))
            best = left.pop(int(logits.argmax()))
            ranked.append(best)
            inputs = torch.cat([inputs, passages[best][None]])
        return [members[position] for position in ranked + left]

    def fill(self, ids: list[int], passages: Tensor, query: Tensor | None) -> Tensor:
        convert = self.engine.prompts._tokenizer.convert_tokens_to_ids
        rows, waiting = [], list(passages)
        for token in ids:
            if token == convert(PASSAGE_TOKEN):
                rows.append(waiting.pop(0))
            elif query is not None and token == convert(QUERY_TOKEN):
                rows.append(query)
            else:
                rows.append(self.engine.model.body.embed_tokens.weight[token])
        assert not waiting
        return torch.stack(rows)


def request(index: int, length: int, seed: int, *, with_query: bool) -> RerankRequest:
    random = np.random.default_rng([seed, length])
    vectors = random.normal(size=(length + 1, EMBEDDING_SIZE)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return RerankRequest(
        query_id=f"q{index}",
        query=QUERIES[index % len(QUERIES)],
        passage_ids=[f"d{position}" for position in range(length)],
        embeddings=vectors[1:],
        query_embedding=vectors[0] if with_query else None,
    )


def checkpoint(folder: Path, kind: str, family: str, projector: str) -> Path:
    if kind == "published":
        return write_published(folder, family, projector, seed=len(family))
    return write_own(folder, family, seed=len(family), projector_type=projector)


@pytest.mark.parametrize(
    ("kind", "family", "projector", "lengths", "window", "step", "decode_steps", "batch_queries"),
    [
        ("published", "llama", "linear", [0, 1, 3, 10, 20, 21], 20, 10, None, 32),
        ("published", "mistral", "mlp2x_gelu", [10, 19, 35], 20, 10, 10, 2),
        ("published", "llama", "linear", [2, 4, 9], 7, 3, None, 3),
        ("own", "llama", "mlp3x_gelu", [0, 1, 2, 9, 10, 11, 19, 20, 40, 100], 20, 10, None, 32),
        ("own", "mistral", "linear", [1, 10, 30, 35, 100], 20, 10, 10, 5),
        ("own", "mistral", "linear", [3, 7, 8, 9, 33], 8, 8, 3, 32),
        ("own", "llama", "linear", [1, 2, 3, 12], 2, 1, None, 4),
    ],
)
def test_the_engine_ranks_as_its_plain_twin(
    tmp_path: Path,
    kind: str,
    family: str,
    projector: str,
    lengths: list[int],
    window: int,
    step: int,
    decode_steps: int | None,
    batch_queries: int,
) -> None:
    folder = checkpoint(tmp_path / "ranker", kind, family, projector)
    engine = PERank.from_pretrained(folder, cache=tmp_path, device="cpu")
    requests = [
        request(i, length, window, with_query=kind == "own") for i, length in enumerate(lengths)
    ]
    results = list(
        engine.rerank_many(
            requests,
            window=window,
            step=step,
            decode_steps=decode_steps,
            batch_queries=batch_queries,
        )
    )
    assert [result.query_id for result in results] == [request.query_id for request in requests]
    compared = 0
    for result, given in zip(results, requests, strict=True):
        assert result.unranked_reason is None
        assert sorted(result.order) == list(range(len(given.passage_ids)))
        twin = Twin(engine)
        order = twin.rerank(given, window, step, decode_steps)
        if twin.gap > CLEAR_GAP:
            assert result.order == order, f"{len(order)} candidates"
            compared += 1
    assert compared >= len(lengths) / 2


def test_duplicates_tie_and_go_to_the_earlier_candidate(tmp_path: Path) -> None:
    engine = PERank.from_pretrained(write_own(tmp_path / "ranker"), cache=tmp_path, device="cpu")
    single = request(0, 20, 3, with_query=True)
    copies = np.repeat(single.embeddings, 3, axis=0)
    result = engine.rerank(
        single.query, embeddings=copies, query_embedding=single.query_embedding, window=60, step=10
    )
    for passage in range(20):
        places = [result.order.index(3 * passage + copy) for copy in range(3)]
        assert places == sorted(places)


def test_an_order_does_not_depend_on_the_queries_beside_it(tmp_path: Path) -> None:
    engine = PERank.from_pretrained(
        write_published(tmp_path / "ranker"), cache=tmp_path, device="cpu"
    )
    requests = [request(i, 8 + 3 * i, 11, with_query=False) for i in range(5)]
    together = [result.order for result in engine.rerank_many(requests, batch_queries=5)]
    for given, order in zip(requests, together, strict=True):
        twin = Twin(engine)
        twin.rerank(given, 20, 10, None)
        if twin.gap > CLEAR_GAP:
            assert next(engine.rerank_many([given])).order == order
