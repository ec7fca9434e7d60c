"""Batches: in, examples; out, tensors for the models to be trained, padded on the right.

Where a causal LLM reads from left to right, what follows a row's last token is not seen by it, so
that padding needs no mask. Lengths, by letter: B examples, n the most passages in one, d the
embeddings' width, L the longest row of tokens, S the slots that embeddings go to, of all rows.
"""

from collections.abc import Sequence
from functools import partial
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from perank_tasks.errors import TrainingError
from perank_tasks.perank.checkpoint import Checkpoint, load_tokenizer
from perank_tasks.perank.prompt import (
    PASSAGE_TOKEN,
    TEMPLATES,
    Prompt,
    PromptBuilder,
    PromptTemplate,
)
from perank_tasks.support.text import clean_text
from perank_tasks.training.examples import AlignmentExample, RankingExample
from perank_tasks.training.losses import IGNORED
from perank_tasks.training.recipe import AlignRecipe, RankRecipe

ALIGNMENT = PromptTemplate(
    name="alignment-v1",
    opening="",
    opening_text="",
    query_line="",
    passage=f"[{PASSAGE_TOKEN}]",
    passage_both="",
    passage_text="",
    number="",
    closing="\nWrite out the passage that this token stands for.",
    closing_numbers="",
)
"""Stage 1's prompt: one passage's slot. The paper's own wording is not published."""


class Rows(TypedDict):
    """What the LLM reads: tokens, and where embeddings take their place."""

    ids: Tensor
    """(B, L); 0 where an embedding goes, and where there is nothing."""
    slot_rows: Tensor
    """(S,) the row of each slot."""
    slot_places: Tensor
    """(S,) its place in the row."""
    slot_passages: Tensor
    """(S,) which of the row's passages goes there; -1: the query."""
    outputs: Tensor
    """(B, n) the places whose hidden states put out passage after passage."""


class RankingBatch(TypedDict):
    """Lists with their golden rankings."""

    embeddings: Tensor
    """(B, n, d)"""
    query_embeddings: Tensor
    """(B, d)"""
    scores: Tensor | None
    """(B, n)"""
    ranking: Tensor
    """(B, n), golden, padded as `losses` has it."""
    sizes: Tensor
    """(B,) passages of each list."""
    plain: Rows
    """With embeddings only."""
    with_texts: Rows | None
    """With embeddings and texts."""


class AlignmentBatch(TypedDict):
    """Passages to say from their embeddings."""

    embeddings: Tensor
    """(B, 1, d)"""
    rows: Rows
    """Prompt and text; `outputs` are the places from which the text's tokens are said."""
    targets: Tensor
    """(B, n) token ids, n the most tokens of a text with its end."""


class RankingCollator:
    """Makes a `RankingBatch` of examples, with the prompts that the engine makes of them.

    Args:
        begun: the checkpoint that the model began with.
        recipe: of stage 2.

    Raises:
        TrainingError: an example lacks what is read of it, or is too long.
    """

    def __init__(self, begun: Checkpoint, recipe: RankRecipe) -> None:
        builder = partial(
            PromptBuilder,
            TEMPLATES[begun.prompt],
            load_tokenizer(begun),
            query_token=begun.query_token,
        )
        self._plain = builder(form="embeddings")
        self._with_texts = builder(form="both") if recipe.has_text_branch else None
        self._needs_scores = begun.score_residual is not None
        self._embedding_size, self._max_tokens = begun.embedding_size, recipe.max_tokens
        self._prompts: dict[tuple[str, int], Prompt] = {}

    def __call__(self, examples: Sequence[RankingExample]) -> RankingBatch:
        for example in examples:
            where = f"the list of query {example.query_id}"
            _check_width(where, example.embeddings, self._embedding_size)
            if self._needs_scores and example.scores is None:
                raise TrainingError(
                    f"{where} has no first-stage scores, which score_residual reads: set "
                    f"score_residual=false, or make the data from collections, where BM25's are "
                    f"kept"
                )
        sizes = torch.tensor([len(example.ranking) for example in examples])
        n = int(sizes.max())
        golden = torch.tensor([[*e.ranking, *range(len(e.ranking), n)] for e in examples])
        scores = with_texts = None
        if self._needs_scores:
            scores = _padded([example.scores for example in examples])
        if builder := self._with_texts:
            prompts = [_prompt_with_texts(builder, example) for example in examples]
            with_texts = self._rows(examples, prompts, n)
        return RankingBatch(
            embeddings=_padded([example.embeddings for example in examples]),
            query_embeddings=torch.stack([_tensor(e.query_embedding) for e in examples]),
            scores=scores,
            ranking=golden,
            sizes=sizes,
            plain=self._rows(examples, [self._prompt(example) for example in examples], n),
            with_texts=with_texts,
        )

    def _prompt(self, example: RankingExample) -> Prompt:
        key = example.query, len(example.ranking)
        if key not in self._prompts:
            self._prompts[key] = self._plain.build(self._plain.prepare(example.query), key[1])
        return self._prompts[key]

    def _rows(self, examples: Sequence[RankingExample], prompts: list[Prompt], n: int) -> Rows:
        """The prompts, each followed by its passages in golden order but for the last one."""
        length = 0
        for prompt, example in zip(prompts, examples, strict=True):
            length = max(length, tokens := len(prompt.input_ids) + len(example.ranking) - 1)
            if tokens > self._max_tokens:
                raise TrainingError(
                    f"the prompt of query {example.query_id} has {tokens} tokens with its "
                    f"{len(example.ranking)} passages, max_tokens is {self._max_tokens}: raise it, "
                    f"or make shorter lists"
                )
        ids = torch.zeros(len(prompts), length, dtype=torch.long)
        slots: list[tuple[int, int, int]] = []
        outputs = torch.zeros(len(prompts), n, dtype=torch.long)
        for row, (prompt, example) in enumerate(zip(prompts, examples, strict=True)):
            end = len(prompt.input_ids)
            ids[row, :end] = torch.tensor(prompt.input_ids)
            slots += [(row, place, i) for i, place in enumerate(prompt.passage_slots)]
            slots += [(row, end + k, i) for k, i in enumerate(example.ranking[:-1])]
            if prompt.query_slot is not None:
                slots.append((row, prompt.query_slot, -1))
            outputs[row] = end - 1
            outputs[row, : len(example.ranking)] += torch.arange(len(example.ranking))
        return _placed(ids, slots, outputs)


class AlignmentCollator:
    """Makes an `AlignmentBatch` of passages.

    Args:
        begun: the checkpoint that the model began with.
        recipe: of stage 1; texts that are longer than its `max_tokens` allow are cut.

    Raises:
        TrainingError: an embedding of another width.
    """

    def __init__(self, begun: Checkpoint, recipe: AlignRecipe) -> None:
        self._tokenizer = load_tokenizer(begun)
        builder = PromptBuilder(ALIGNMENT, self._tokenizer, query_token=False)
        self._prompt = builder.build(builder.prepare(""), 1)
        # Texts are cleaned of special tokens: in one's middle, its end would be learnt.
        self._special = frozenset(self._tokenizer.get_added_vocab().values())
        self._embedding_size = begun.embedding_size
        self._room = recipe.max_tokens - len(self._prompt.input_ids)
        self._end: int | None = self._tokenizer.eos_token_id

    def __call__(self, examples: Sequence[AlignmentExample]) -> AlignmentBatch:
        prompt = self._prompt.input_ids
        texts = [self.tokens(example.text) for example in examples]
        # The last token is said and not read.
        length = len(prompt) + max(len(text) for text in texts) - 1
        ids = torch.zeros(len(texts), length, dtype=torch.long)
        targets = torch.full((len(texts), length - len(prompt) + 1), IGNORED)
        for row, text in enumerate(texts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
            ids[row, len(prompt) : len(prompt) + len(text) - 1] = torch.tensor(text[:-1])
            targets[row, : len(text)] = torch.tensor(text)
        places = torch.arange(len(prompt) - 1, length)
        slots = [(row, self._prompt.passage_slots[0], 0) for row in range(len(texts))]
        for example in examples:
            _check_width(f"passage {example.passage_id}", example.embedding, self._embedding_size)
        return AlignmentBatch(
            embeddings=torch.stack([_tensor(example.embedding) for example in examples])[:, None],
            rows=_placed(ids, slots, places.expand(len(texts), -1).contiguous()),
            targets=targets,
        )

    def tokens(self, text: str) -> list[int]:
        """A text's tokens with the end, at least one."""
        ids = self._tokenizer(
            clean_text(text), add_special_tokens=False, truncation=True, max_length=self._room
        )["input_ids"]
        plain = [token for token in ids if token not in self._special]
        if self._end is not None:
            plain = [*plain[: self._room - 1], self._end]
        return plain or [0]


def _check_width(where: str, embeddings: np.ndarray, width: int) -> None:
    if embeddings.shape[-1] != width:
        raise TrainingError(
            f"{where} has embeddings of {embeddings.shape[-1]} values, and the projector reads "
            f"{width}: make the data with the checkpoint's embedder"
        )


def _prompt_with_texts(builder: PromptBuilder, example: RankingExample) -> Prompt:
    texts = [builder.prepare_passage(text).text for text in example.texts]
    return builder.build(builder.prepare(example.query), len(texts), texts)


def _placed(ids: Tensor, slots: list[tuple[int, int, int]], outputs: Tensor) -> Rows:
    rows, places, passages = torch.tensor(slots, dtype=torch.long).reshape(-1, 3).T.contiguous()
    # Slot tokens may lie beyond the embedding matrix.
    ids[rows, places] = 0
    return Rows(
        ids=ids, slot_rows=rows, slot_places=places, slot_passages=passages, outputs=outputs
    )


def _padded(values: Sequence[np.ndarray | None]) -> Tensor:
    return pad_sequence([_tensor(each) for each in values], batch_first=True)


def _tensor(values: np.ndarray | None) -> Tensor:
    return torch.from_numpy(np.array(values, np.float32))
