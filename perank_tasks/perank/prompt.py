"""Prompts: in, a query and a number of passages; out, token ids with the slots' positions.

A template writes one user message with placeholder tokens where embeddings go. The whole
message is rendered through the tokenizer's chat template with the generation prompt and
tokenised at once; the slots are then found by their token's id and counted. Query text
cannot add to them: any special token or chat marker in it is broken by a space first.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perank_tasks.errors import CheckpointError, QualityError
from perank_tasks.text import clean_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PASSAGE_TOKEN = "<PLACEHOLDER>"
QUERY_TOKEN = "<QUERY>"

MAX_QUERY_TOKENS = 256

# Markers of common chat templates. They are broken whether or not this tokenizer has them as
# tokens of their own: Mistral's [INST] is plain text to its tokenizer, and structure to it.
CHAT_MARKERS = (
    "[INST]",
    "[/INST]",
    "<<SYS>>",
    "<</SYS>>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
    "<s>",
    "</s>",
    "<RANK>",
    PASSAGE_TOKEN,
    QUERY_TOKEN,
)

# What transformers 4.37, which the reference pins, used for a Llama or Mistral tokenizer saved
# without a template of its own; transformers 5 has no default.
DEFAULT_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ bos_token + '[INST] ' + message['content'].strip() + ' [/INST]' }}"
    "{% endfor %}"
)


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A prompt's text, by name. `{n}`, `{i}` and `{query}` are filled in.

    `query_line` holds the query's embedding slot, and is left out where a checkpoint has no
    query token.
    """

    name: str
    opening: str
    query_line: str
    passage: str
    closing: str

    def text(self, query: str, passages: int, *, query_token: bool) -> str:
        """The user message for `passages` passages."""
        return "".join(
            [
                self.opening.format(n=passages, query=query),
                self.query_line if query_token else "",
                *(self.passage.format(i=i) for i in range(1, passages + 1)),
                self.closing.format(n=passages, query=query),
            ]
        )


RELEASED_V1 = PromptTemplate(
    name="released-v1",
    opening=(
        "I will provide you with {n} passages, each with a special token representing the "
        "passage enclosed in [], followed by original text.\n"
        "Rank the passages based on their relevance to the search query: {query}.\n"
    ),
    query_line="",
    passage=f"Passage {{i}}: [{PASSAGE_TOKEN}]\n\n",
    closing=(
        "Search Query: {query}.\n"
        "Rank the {n} relatively ordered passages above based on their relevance to the search "
        "query, output the ranking in descending order. Only output the {n} unique special token "
        "in the ranking.\n\n"
    ),
)

COMPACT_V1 = PromptTemplate(
    name="compact-v1",
    opening="Query: {query}\n",
    query_line=f"{QUERY_TOKEN}\n",
    passage=PASSAGE_TOKEN,
    closing="\nRank these {n} passages by relevance to the query, best first.",
)

TEMPLATES = {template.name: template for template in (RELEASED_V1, COMPACT_V1)}


@dataclass(frozen=True, slots=True)
class PreparedQuery:
    """Query text that is safe to put in a prompt, and what had to be done to it."""

    text: str
    was_cut: bool
    markers_defused: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids, and where among them the embeddings go.

    `input_ids[passage_slots[j]]` is the j-th passage's; `query_slot` is the query
    embedding's, None where there is none.
    """

    input_ids: list[int]
    passage_slots: list[int]
    query_slot: int | None


class PromptBuilder:
    """Makes the prompts of one checkpoint: a template, a tokenizer, with or without query token.

    Placeholder tokens that the tokenizer lacks are added to it in memory; their ids may lie
    beyond the model's embedding matrix, which is harmless since slots are never looked up.

    Attributes:
        hash: sixteen hex digits over the template, the chat template and the query rules.
    """

    def __init__(
        self, template: PromptTemplate, tokenizer: "PreTrainedTokenizerBase", *, query_token: bool
    ) -> None:
        if query_token and not template.query_line:
            raise CheckpointError(
                f"prompt {template.name!r} has no place for a query embedding, but the checkpoint "
                f"sets query_token: true. Expected a prompt with one, such as {COMPACT_V1.name!r}"
            )
        self.template = template
        self.query_token = query_token
        self._tokenizer = tokenizer
        slots = [PASSAGE_TOKEN, QUERY_TOKEN] if query_token else [PASSAGE_TOKEN]
        known = tokenizer.get_added_vocab()
        missing = [token for token in slots if token not in known]
        if missing:
            tokenizer.add_tokens(missing, special_tokens=True)
        self._passage_id = tokenizer.convert_tokens_to_ids(PASSAGE_TOKEN)
        self._query_id = tokenizer.convert_tokens_to_ids(QUERY_TOKEN) if query_token else None
        added = tokenizer.get_added_vocab()
        self._added_ids = frozenset(added.values())
        self._marker_pattern = _marker_pattern([*added, *tokenizer.all_special_tokens])
        self._chat_template = tokenizer.chat_template or DEFAULT_CHAT_TEMPLATE
        self._structure: dict[int, list[int]] = {}
        self.hash = hashlib.sha256(
            json.dumps(
                [
                    template.name,
                    template.opening,
                    template.query_line if query_token else "",
                    template.passage,
                    template.closing,
                    self._chat_template,
                    MAX_QUERY_TOKENS,
                ]
            ).encode()
        ).hexdigest()[:16]

    def prepare(self, query: str) -> PreparedQuery:
        """Clean a query, break the markers in it, and keep its first 256 tokens."""
        text, defused = _defuse(clean_text(query), self._marker_pattern)
        offsets = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)[
            "offset_mapping"
        ]
        if len(offsets) <= MAX_QUERY_TOKENS:
            return PreparedQuery(text, was_cut=False, markers_defused=defused)
        start, end = offsets[MAX_QUERY_TOKENS - 1]
        # A character that several tokens spell is kept whole or not at all.
        within_character = offsets[MAX_QUERY_TOKENS][0] < end
        return PreparedQuery(text[: start if within_character else end], True, defused)

    def build(self, query: PreparedQuery, passages: int) -> Prompt:
        """The prompt for a window of `passages` passages.

        Raises:
            QualityError: the query changed the prompt's structure in spite of `prepare`.
        """
        ids = self._tokenise(query.text, passages)
        if passages not in self._structure:
            plain = self._tokenise("query", passages)
            self._structure[passages] = [token for token in plain if token in self._added_ids]
        if [token for token in ids if token in self._added_ids] != self._structure[passages]:
            raise QualityError("the query's text adds special tokens to the prompt")
        slots = [i for i, token in enumerate(ids) if token == self._passage_id]
        query_slots = [i for i, token in enumerate(ids) if token == self._query_id]
        if len(slots) != passages or len(query_slots) != self.query_token:
            raise QualityError(
                f"prompt {self.template.name!r} has {len(slots)} passage and {len(query_slots)} "
                f"query slots, expected {passages} and {int(self.query_token)}: "
                f"the chat template drops or repeats part of the message"
            )
        return Prompt(ids, slots, query_slots[0] if query_slots else None)

    def _tokenise(self, query: str, passages: int) -> list[int]:
        message = self.template.text(query, passages, query_token=self.query_token)
        rendered = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": message}],
            chat_template=self._chat_template,
            add_generation_prompt=True,
            tokenize=False,
        )
        return self._tokenizer(rendered, add_special_tokens=False)["input_ids"]


def _marker_pattern(tokens: list[str]) -> re.Pattern[str]:
    """Matches chat markers and `tokens`; white space and single characters, which a space
    cannot break and which carry no structure, are left alone."""
    markers = {marker for marker in [*CHAT_MARKERS, *tokens] if len(marker.strip()) > 1}
    longest_first = sorted(markers, key=lambda marker: (-len(marker), marker))
    return re.compile("|".join(re.escape(marker) for marker in longest_first))


def _defuse(text: str, pattern: re.Pattern[str]) -> tuple[str, int]:
    """Put a space after the first character of every marker; the text and how many there were."""
    total = 0
    while True:
        text, found = pattern.subn(lambda match: f"{match[0][0]} {match[0][1:]}", text)
        if not found:
            return text, total
        total += found
