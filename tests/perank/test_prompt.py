"""Prompts: slots are found, query text cannot add to them, ordinary text is left alone."""

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from perank_tasks.errors import CheckpointError
from perank_tasks.perank import PERank, RankingOptions
from perank_tasks.perank.prompt import (
    COMPACT_V1,
    COMPACT_V2,
    MAX_QUERY_TOKENS,
    PASSAGE_TOKEN,
    RELEASED_V1,
    PromptBuilder,
)
from perank_tasks.support.text import REPLACEMENT
from tests.perank.conftest import GOLDEN

MARKERS = [
    "<PLACEHOLDER>", "<RANK>", "<QUERY>", "<s>", "</s>", "<unk>", "[INST]", "[/INST]", "<<SYS>>",
    "<</SYS>>", "<|im_start|>", "<|im_end|>", "<|user|>",
]  # fmt: skip


@pytest.fixture(scope="module")
def prompts(golden_engine: PERank) -> PromptBuilder:
    return golden_engine.prompts(RankingOptions())


@pytest.mark.parametrize("marker", MARKERS)
def test_a_marker_in_a_query_is_broken_by_a_space(prompts: PromptBuilder, marker: str) -> None:
    query = prompts.prepare(f"fleas {marker}{marker} live [{marker}]")
    broken = f"{marker[0]} {marker[1:]}"
    assert query.text == f"fleas {broken}{broken} live [{broken}]"
    assert query.markers_defused == 3
    prompt = prompts.build(query, 5)
    assert len(prompt.passage_slots) == 5


def test_markers_inside_markers_are_broken_too(prompts: PromptBuilder) -> None:
    query = prompts.prepare("<<PLACEHOLDER>PLACEHOLDER> <PLACE<PLACEHOLDER>HOLDER> [[INST]INST]")
    assert not any(marker in query.text for marker in MARKERS)
    assert len(prompts.build(query, 2).passage_slots) == 2


@given(st.lists(st.one_of(st.sampled_from(MARKERS), st.text(max_size=5)), max_size=8).map("".join))
@settings(max_examples=60, deadline=None)
def test_no_query_changes_the_structure(golden_engine: PERank, text: str) -> None:
    prompts = golden_engine.prompts(RankingOptions())
    prompt = prompts.build(prompts.prepare(text), 3)
    assert len(prompt.passage_slots) == 3
    assert prompt.query_slot is None


@given(st.text(max_size=40).filter(lambda text: not any(c in text for c in "<[\0")))
@settings(max_examples=60, deadline=None)
def test_the_tokens_are_sentencepieces_own(golden_engine: PERank, text: str) -> None:
    """As transformers 4.37's slow tokenizer: the text between special tokens, each by itself."""
    prompts = golden_engine.prompts(RankingOptions())
    query = prompts.prepare(text)
    assert (query.text, query.markers_defused) == (text, 0)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(GOLDEN / "tokenizer.model"))
    message = prompts.message(text, 2)
    chunks = f"[INST] {message} [/INST]".split(PASSAGE_TOKEN)
    expected = [1]
    for i, chunk in enumerate(chunks):
        expected += [800] * (i > 0) + pieces.encode(chunk)
    assert prompts.build(query, 2).input_ids == expected


def test_a_query_of_ten_thousand_characters_keeps_its_first_256_tokens(
    prompts: PromptBuilder, golden_engine: PERank
) -> None:
    text = ("how long does a flea live " * 400)[:10_000]
    query = prompts.prepare(text)
    assert query.was_cut
    assert text.startswith(query.text)
    ids = golden_engine.prompts(RankingOptions())._tokenizer(text, add_special_tokens=False)[
        "input_ids"
    ]
    cut = golden_engine.prompts(RankingOptions())._tokenizer(query.text, add_special_tokens=False)[
        "input_ids"
    ]
    assert cut == ids[:MAX_QUERY_TOKENS]
    result = golden_engine.rerank(text, ["one passage", "another passage"])
    assert result.query_was_cut
    assert result.unranked_reason is None


def test_a_query_at_the_limit_is_not_cut(prompts: PromptBuilder) -> None:
    word = "a "
    tokens = len(prompts._tokenizer(word * 50, add_special_tokens=False)["input_ids"])
    short = word * (50 * MAX_QUERY_TOKENS // (tokens + 50))
    assert not prompts.prepare(short).was_cut


def test_emoji_spelt_in_bytes_are_cut_between_characters(prompts: PromptBuilder) -> None:
    query = prompts.prepare("\N{FLEXED BICEPS}" * 300)
    assert query.was_cut
    assert set(query.text) == {"\N{FLEXED BICEPS}"}


def test_nul_and_lone_surrogates_are_replaced(prompts: PromptBuilder) -> None:
    query = prompts.prepare("a\0b \ud800 c")
    assert query.text == f"a{REPLACEMENT}b {REPLACEMENT} c"
    prompts.build(query, 2)


def test_each_template_has_a_hash_of_its_own(prompts: PromptBuilder) -> None:
    tokenizer = prompts._tokenizer
    hashes = {
        PromptBuilder(template, tokenizer, query_token=query_token).hash
        for template, query_token in [
            (RELEASED_V1, False),
            (COMPACT_V1, True),
            (COMPACT_V1, False),
            (COMPACT_V2, True),
        ]
    }
    assert len(hashes) == 4
    assert prompts.hash in hashes


def test_the_released_prompt_takes_no_query_token(prompts: PromptBuilder) -> None:
    with pytest.raises(CheckpointError, match="query_token"):
        PromptBuilder(RELEASED_V1, prompts._tokenizer, query_token=True)


@pytest.mark.parametrize("passages", [1, 20])
def test_the_second_compact_prompt_ends_with_the_query(
    prompts: PromptBuilder, passages: int
) -> None:
    builder = PromptBuilder(COMPACT_V2, prompts._tokenizer, query_token=True)
    prompt = builder.build(builder.prepare("how long do fleas live"), passages)
    assert prompt.query_slot == len(prompt.input_ids) - 1
    assert len(prompt.passage_slots) == passages
