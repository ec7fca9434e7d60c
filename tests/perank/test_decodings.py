"""First step, free generation, forms with text, passes, initial orders, and memory that runs out.

Free generation is held against transformers' own `generate` with the stock causal LLM.
"""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from perank_tasks.errors import ConfigError, DeviceMemoryError
from perank_tasks.perank import CandidateList, PERank, RankingOptions, decode
from perank_tasks.perank.block import Block, Counters
from perank_tasks.perank.checkpoint import load_checkpoint, load_head
from perank_tasks.perank.llm import Cache, Llm
from perank_tasks.perank.ranking import Ranking
from perank_tasks.perank.shapes import Shapes
from tests.perank.conftest import GOLDEN, REFERENCE
from tests.perank.tiny import EMBEDDING_SIZE, write_own


@pytest.fixture(scope="module")
def with_texts(golden_requests: list[CandidateList]) -> list[CandidateList]:
    """The reference's five lists with the passages' texts."""
    return [
        dataclasses.replace(request, texts=[c["text"] for c in case["candidates"]])
        for case, request in zip(REFERENCE, golden_requests, strict=True)
    ]


@pytest.fixture(scope="module")
def own_engine(tmp_path_factory: pytest.TempPathFactory) -> PERank:
    folder = tmp_path_factory.mktemp("own")
    return PERank.from_pretrained(write_own(folder / "ranker"), cache=folder, device="cpu")


def random_request(number: int, length: int) -> CandidateList:
    random = np.random.default_rng([number, length])
    vectors = random.normal(size=(length + 1, EMBEDDING_SIZE)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = [f"d{position}" for position in range(length)]
    return CandidateList(
        f"q{number}", f"question {number}", ids, vectors=vectors[1:], query_embedding=vectors[0]
    )


def test_the_first_step_puts_first_what_constrained_decoding_does(own_engine: PERank) -> None:
    given = [random_request(number, 20) for number in range(6)]
    stepwise = list(own_engine.rerank_many(given))
    once = list(own_engine.rerank_many(given, RankingOptions(decoding="first-step")))
    assert [result.order[0] for result in once] == [result.order[0] for result in stepwise]
    assert [result.order for result in once] != [result.order for result in stepwise]
    assert [(result.decode_steps, result.windows) for result in once] == [(1, 1)] * 6


@pytest.mark.parametrize("passages", ["embeddings", "both"])
def test_free_generation_where_the_query_begins_answers(tmp_path: Path, passages: str) -> None:
    """An answer in numbers does not begin with the query's embedding: there is no slot for it."""
    engine = PERank.from_pretrained(
        write_own(tmp_path / "ranker", prompt="compact-v2"), cache=tmp_path, device="cpu"
    )
    request = dataclasses.replace(random_request(1, 4), texts=["one", "two", "three", "four"])
    options = RankingOptions(decoding="free", passages=passages)  # type: ignore[arg-type]
    result = next(engine.rerank_many([request], options))
    assert result.unranked_reason is None
    assert sorted(result.order) == list(range(4))
    assert result.decode_steps > 0


def without_llm(folder: Path, t: float) -> PERank:
    """A ranker whose LLM counts t times."""
    return PERank.from_pretrained(
        write_own(folder / f"t-{t}", extra={"residual.t": torch.tensor(t)}),
        cache=folder,
        device="cpu",
    )


@pytest.mark.parametrize("options", [{}, {"passes": 2}, {"initial_order": "random"}])
def test_the_residual_alone_ranks_as_constrained_decoding_does_without_the_llms_share(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    given = [random_request(number, length) for number, length in enumerate((20, 35, 10, 1, 100))]
    assert given[1].embeddings is not None
    given[1].embeddings[7:12] = given[1].embeddings[3]  # ties go to the earlier passage
    off = without_llm(tmp_path, 0.0)
    expected = [result.order for result in off.rerank_many(given, RankingOptions(**options))]
    on = without_llm(tmp_path, 0.5)
    alone = RankingOptions(decoding="residual", **options)
    results = list(on.rerank_many(given, alone))
    assert [result.order for result in results] == expected
    assert sum(result.tokens_in + result.decode_steps for result in results) == 0
    assert on.counters.forward_passes == on.counters.flops == 0
    assert on.counters.windows == sum(result.windows for result in results) > 0
    assert [result.order for result in on.rerank_many(given, RankingOptions(**options))] != expected


def test_the_residual_alone_needs_one_and_reads_no_text(golden_engine: PERank) -> None:
    with pytest.raises(ConfigError, match="has no residual"):
        golden_engine.rerank_many([], RankingOptions(decoding="residual"))
    with pytest.raises(ConfigError, match="no LLM to read texts"):
        RankingOptions(decoding="residual", passages="both")


def test_equal_first_logits_go_to_the_earlier_candidate(own_engine: PERank) -> None:
    request = random_request(1, 12)
    assert request.embeddings is not None
    same = dataclasses.replace(request, vectors=np.repeat(request.embeddings[:1], 12, axis=0))
    result = next(own_engine.rerank_many([same], RankingOptions(decoding="first-step")))
    assert result.order == list(range(12))


@pytest.mark.parametrize("passages", ["embeddings", "both", "text"])
def test_free_generation_is_transformers_own(
    golden_engine: PERank, with_texts: list[CandidateList], tmp_path: Path, passages: Any
) -> None:
    """Token for token, with prompts of several lengths in one batch, until each would stop."""
    options = RankingOptions(decoding="free", passages=passages)
    requests = [r for r in with_texts if 1 < len(r.passage_ids) <= 20]
    windows = []
    for request in requests:
        window = Ranking(golden_engine._method(options), request).window()
        assert window is not None
        windows.append(window)
    head = load_head(load_checkpoint(GOLDEN, cache=tmp_path))
    stop = golden_engine._tokenizer.eos_token_id
    written: list[list[int]] = []

    def read(tokens: list[int]) -> str:
        written.append(tokens)
        return ""

    shapes = Shapes.of(golden_engine.model.llm, len(windows))
    block = Block(golden_engine.model, shapes, len(windows), 3000, 20, Counters())
    block.fill(windows)
    prompts = SimpleNamespace(
        answer_tokens=lambda size: 2 * size, stop_tokens={stop}, read_answer=read
    )
    decode.free(block, head, prompts)  # type: ignore[arg-type]

    checkpoint = load_checkpoint(GOLDEN, cache=tmp_path)
    stock = MistralForCausalLM(MistralConfig(**checkpoint.llm.to_dict())).eval()
    body = {f"model.{name}": tensor for name, tensor in checkpoint.body.items()}
    stock.load_state_dict(body | {"lm_head.weight": head})
    none = torch.zeros(1, golden_engine.model.llm.hidden_size)
    for window, tokens in zip(windows, written, strict=True):
        inputs = golden_engine.model.embed([window.prompt], [0], window.projected[None], none)
        expected = stock.generate(
            inputs_embeds=inputs,
            attention_mask=torch.ones(inputs.shape[:2], dtype=torch.long),
            max_new_tokens=2 * len(window.projected),
            do_sample=False,
            eos_token_id=stop,
            pad_token_id=0,
        )[0].tolist()
        expected = expected[: expected.index(stop)] if stop in expected else expected
        assert tokens == expected
        assert len(tokens) > 5


@pytest.mark.parametrize(
    ("answer", "order", "missing", "repeated"),
    [
        ("[3] > [1] > [2]", [2, 0, 1], 0, 0),
        ("Sure! [3] > [3] > [1]", [2, 0, 1], 1, 1),
        ("[4] > [0] > [2]", [1, 0, 2], 2, 2),
        ("", [0, 1, 2], 3, 0),
        ("9" * 5000, [0, 1, 2], 3, 1),
    ],
)
def test_an_answer_in_numbers_is_repaired_and_the_repairs_counted(
    answer: str, order: list[int], missing: int, repeated: int
) -> None:
    decoded = decode._parsed(answer, 3, 7, finite=True)
    assert decoded == decode.Decoded(order, 7, missing=missing, repeated=repeated)


def test_free_decoding_gives_permutations_and_says_what_it_repaired(
    golden_engine: PERank, with_texts: list[CandidateList]
) -> None:
    for passages in ("embeddings", "both", "text"):
        options = RankingOptions(decoding="free", passages=passages)  # type: ignore[arg-type]
        results = list(golden_engine.rerank_many(with_texts[:2], options))
        for request, result in zip(with_texts, results, strict=False):
            assert result.unranked_reason is None
            assert sorted(result.order) == list(range(len(request.passage_ids)))
            # A random LLM writes no ranking.
            assert result.numbers_missing > 0


def test_with_text_the_prompt_has_both(golden_engine: PERank) -> None:
    prompts = golden_engine.prompts(RankingOptions(passages="both"))
    texts = [prompts.prepare_passage(text).text for text in ("see [12]", " <PLACEHOLDER> x ")]
    assert texts == ["see (12)", "< PLACEHOLDER> x"]
    assert prompts.message("fleas", 2, texts) == (
        "I will provide you with 2 passages, each with a special token representing the passage "
        "enclosed in [], followed by original text.\n"
        "Rank the passages based on their relevance to the search query: fleas.\n"
        "Passage 1: [<PLACEHOLDER>] see (12)\n\n"
        "Passage 2: [<PLACEHOLDER>] < PLACEHOLDER> x\n\n"
        "Search Query: fleas.\n"
        "Rank the 2 relatively ordered passages above based on their relevance to the search "
        "query, output the ranking in descending order. Only output the 2 unique special token in "
        "the ranking.\n\n"
    )
    assert len(prompts.build(prompts.prepare("fleas"), 2, texts).passage_slots) == 2


def test_text_alone_asks_for_numbers(golden_engine: PERank) -> None:
    options = RankingOptions(decoding="free", passages="text")
    prompts = golden_engine.prompts(options)
    assert prompts.message("fleas", 1, ["see (12)"]) == (
        "I will provide you with 1 passages.\n"
        "Rank the passages based on their relevance to the search query: fleas.\n"
        "Passage 1: see (12)\n\n"
        "Search Query: fleas.\n"
        "Rank the 1 relatively ordered passages above based on their relevance to the search "
        "query, output the ranking in descending order. The output format should be [] > [] > "
        "..., e.g., [4] > [2] > ..., Only respond with the ranking results with 1 unique numbers, "
        "do not say anything else or explain.\n\n"
    )
    assert prompts.build(prompts.prepare("fleas"), 1, ["see (12)"]).passage_slots == []
    hashes = {
        golden_engine.prompts(each).hash
        for each in (RankingOptions(), RankingOptions(passages="both"), options)
    }
    assert len(hashes) == 3


def test_a_long_passage_keeps_its_first_256_tokens(golden_engine: PERank) -> None:
    prompts = golden_engine.prompts(RankingOptions(passages="both"))
    assert prompts.prepare_passage("flea " * 1000).was_cut


def test_texts_that_are_missing_cost_their_query_only(
    golden_engine: PERank, with_texts: list[CandidateList]
) -> None:
    broken = dataclasses.replace(with_texts[1], texts=None)
    results = list(
        golden_engine.rerank_many([with_texts[0], broken], RankingOptions(passages="both"))
    )
    assert results[0].unranked_reason is None
    assert results[1].unranked_reason == "0 texts for 7 passages"


def test_a_second_pass_goes_on_from_the_first(own_engine: PERank) -> None:
    request = random_request(3, 30)
    once = next(own_engine.rerank_many([request]))
    assert request.embeddings is not None
    again = dataclasses.replace(request, vectors=request.embeddings[once.order])
    twice = next(own_engine.rerank_many([again]))
    both = next(own_engine.rerank_many([request], RankingOptions(passes=2)))
    assert both.order == [once.order[position] for position in twice.order]
    assert both.order != once.order
    assert both.windows == 2 * once.windows


def test_an_initial_order_is_where_ranking_starts(own_engine: PERank) -> None:
    request = random_request(4, 30)
    assert request.embeddings is not None
    turned = dataclasses.replace(request, vectors=request.embeddings[::-1].copy())
    expected = [29 - position for position in next(own_engine.rerank_many([turned])).order]
    inverted = next(own_engine.rerank_many([request], RankingOptions(initial_order="inverted")))
    assert inverted.order == expected


def test_one_window_over_the_whole_list(own_engine: PERank) -> None:
    result = next(own_engine.rerank_many([random_request(5, 60)], RankingOptions(window=60)))
    assert (result.windows, result.decode_steps) == (1, 59)


def test_what_prompts_begin_with_is_computed_once(tmp_path: Path) -> None:
    engine = PERank.from_pretrained(write_own(tmp_path / "ranker"), cache=tmp_path, device="cpu")
    results = list(engine.rerank_many([random_request(number, 100) for number in range(4)]))
    work = engine.counters
    asked = sum(result.tokens_in for result in results)
    assert work.prefill_tokens + work.reused_tokens >= asked
    # 9 windows a query, of which 8 begin with the template and the query,
    # the first with the template.
    assert work.reused_tokens > asked / 5
    assert work.decode_tokens == 4 * 9 * 18
    assert (work.queries, work.windows) == (4, 36)
    llm = engine.model.llm
    assert work.flops > 2 * llm.parameters() * (work.prefill_tokens + work.decode_tokens)


def exhausted_above(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the LLM's cache be refused as torch does when the device has no more."""
    make = Cache.__init__

    def refuse(cache: Cache, llm: Llm, count: int, length: int) -> None:
        if count > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        make(cache, llm, count, length)

    monkeypatch.setattr(Cache, "__init__", refuse)


def test_out_of_memory_halves_the_batch_and_ranks_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = PERank.from_pretrained(write_own(tmp_path / "ranker"), cache=tmp_path, device="cpu")
    given = [random_request(number, 25) for number in range(7)]
    expected = [result.order for result in engine.rerank_many(given)]
    engine = PERank.from_pretrained(tmp_path / "ranker", cache=tmp_path, device="cpu")
    exhausted_above(2, monkeypatch)
    assert [result.order for result in engine.rerank_many(given)] == expected
    exhausted_above(0, monkeypatch)
    engine._rounds._blocks.clear()
    with pytest.raises(DeviceMemoryError, match="smaller window"):
        list(engine.rerank_many(given))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried …"),
        RuntimeError("could not create a primitive"),  # oneDNN
        RuntimeError("std::bad_alloc"),
        MemoryError(),
    ],
)
def test_every_way_to_say_that_memory_is_out_is_known(
    own_engine: PERank, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    given = [random_request(number, 25) for number in range(3)]
    expected = [result.order for result in own_engine.rerank_many(given)]
    forward = Llm.forward

    def refuse(llm: Llm, inputs: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        if len(inputs) > 1:
            raise error
        return forward(llm, inputs, *rest, **named)

    monkeypatch.setattr(Llm, "forward", refuse)
    assert [result.order for result in own_engine.rerank_many(given)] == expected


def test_a_shape_that_does_not_fit_is_no_lack_of_memory(
    own_engine: PERank, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> torch.Tensor:
        raise RuntimeError("could not create a primitive descriptor for the inner product")

    monkeypatch.setattr(Llm, "forward", refuse)
    with pytest.raises(RuntimeError, match="descriptor"):
        list(own_engine.rerank_many([random_request(number, 25) for number in range(3)]))


def test_a_nan_leaves_nothing_behind_for_later_queries(own_engine: PERank) -> None:
    good = [random_request(number, 30) for number in range(4)]
    expected = [result.order for result in own_engine.rerank_many(good)]
    assert good[1].embeddings is not None
    bad = dataclasses.replace(good[1], vectors=good[1].embeddings * np.float32(3e38))
    results = list(own_engine.rerank_many([good[0], bad, good[2], good[3]]))
    assert "not finite" in (results[1].unranked_reason or "")
    assert [results[i].order for i in (0, 2, 3)] == [expected[i] for i in (0, 2, 3)]
    assert [result.order for result in own_engine.rerank_many(good)] == expected
