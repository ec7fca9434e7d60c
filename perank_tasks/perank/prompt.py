"""Prompts: in, a query and a number of passages; out, token ids with the slots' positions.

A template writes one user message with placeholder tokens where embeddings go. The whole
message is rendered through the tokenizer's chat template with the generation prompt and
tokenised at once; the slots are then found by their token's id and counted. Texts of queries
and passages cannot add to them: any special token or chat marker in one is broken by a space
first.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from perank_tasks.errors import CheckpointError, QualityError
from perank_tasks.perank.options import PassageForm
from perank_tasks.support.text import clean_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PASSAGE_TOKEN = "<PLACEHOLDER>"
QUERY_TOKEN = "<QUERY>"
SLOT_TOKENS = (PASSAGE_TOKEN, QUERY_TOKEN, "<RANK>")
"""The reference's third one stands for a passage in an answer."""

MAX_QUERY_TOKENS = 256
MAX_PASSAGE_TOKENS = 256

CHAT_MARKERS = r"\[/?INST\]|<</?SYS>>|</?s>|<\|\w+\|>"
"""Markers of chat templates: Llama 2's and Mistral's, and what others write as <|…|>. They are
broken whether or not this tokenizer has them as tokens of their own: Mistral's [INST] is plain text
to its tokenizer, and structure to it."""

# What transformers 4.37, which the reference pins, used for a Llama or Mistral tokenizer saved
# without a template of its own; transformers 5 has no default.
DEFAULT_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ bos_token + '[INST] ' + message['content'].strip() + ' [/INST]' }}"
    "{% endfor %}"
)


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A prompt's texts, by name. `{n}`, `{i}`, `{query}` and `{text}` are filled in.

    Which of them make a prompt depends on the form of the passages (`options.PassageForm`) and
    on the answer that is asked for: passages' embeddings, or their numbers. `query_line`
    or `answer` holds the query's embedding slot, and is left out where a checkpoint has no query
    token, or where there is no embedding in the prompt at all.
    """

    name: str
    opening: str
    opening_text: str
    query_line: str
    passage: str
    passage_both: str
    passage_text: str
    number: str
    """Comes before each passage where numbers are asked for."""
    closing: str
    closing_numbers: str
    answer: str = ""
    """What the answer begins with, behind the chat template's generation prompt. A query slot here
    is where the LLM puts out the best passage from: its input carries over to its output."""

    @property
    def has_query_slot(self) -> bool:
        """Whether there is a place for the query's embedding."""
        return QUERY_TOKEN in self.query_line + self.answer

    def pieces(
        self, form: PassageForm, *, query_token: bool, numbers: bool
    ) -> tuple[str, str, str, str, str]:
        """Opening, query line, passage line, closing and the answer's beginning."""
        line = {"embeddings": self.passage, "both": self.passage_both, "text": self.passage_text}
        return (
            self.opening_text if form == "text" else self.opening,
            self.query_line if query_token and form != "text" else "",
            (self.number if numbers else "") + line[form],
            self.closing_numbers if numbers else self.closing,
            self.answer if query_token and form != "text" and not numbers else "",
        )


_RANKING_TASK = (
    "Rank the {n} relatively ordered passages above based on their relevance to the search query, "
    "output the ranking in descending order. "
)

RELEASED_V1 = PromptTemplate(
    name="released-v1",
    opening=(
        "I will provide you with {n} passages, each with a special token representing the "
        "passage enclosed in [], followed by original text.\n"
        "Rank the passages based on their relevance to the search query: {query}.\n"
    ),
    opening_text=(
        "I will provide you with {n} passages.\n"
        "Rank the passages based on their relevance to the search query: {query}.\n"
    ),
    query_line="",
    passage=f"Passage {{i}}: [{PASSAGE_TOKEN}]\n\n",
    passage_both=f"Passage {{i}}: [{PASSAGE_TOKEN}] {{text}}\n\n",
    passage_text="Passage {i}: {text}\n\n",
    number="",
    closing=(
        "Search Query: {query}.\n"
        + _RANKING_TASK
        + "Only output the {n} unique special token in the ranking.\n\n"
    ),
    closing_numbers=(
        "Search Query: {query}.\n"
        + _RANKING_TASK
        + "The output format should be [] > [] > ..., e.g., [4] > [2] > ..., Only respond with the "
        "ranking results with {n} unique numbers, do not say anything else or explain.\n\n"
    ),
)

COMPACT_V1 = PromptTemplate(
    name="compact-v1",
    opening="Query: {query}\n",
    opening_text="Query: {query}\n",
    query_line=f"{QUERY_TOKEN}\n",
    passage=PASSAGE_TOKEN,
    passage_both=f"{PASSAGE_TOKEN} {{text}}\n",
    passage_text="{text}\n",
    number="[{i}] ",
    closing="\nRank these {n} passages by relevance to the query, best first.",
    closing_numbers=(
        "\nRank these {n} passages by relevance to the query, best first, as [4] > [2] > ...: "
        "only the ranking."
    ),
)

COMPACT_V2 = replace(COMPACT_V1, name="compact-v2", query_line="", answer=QUERY_TOKEN)
"""The query's embedding comes last, as if it were the first thing put out."""

TEMPLATES = {template.name: template for template in (RELEASED_V1, COMPACT_V1, COMPACT_V2)}


# No two begin alike: what prompts for them have in common is the template's.
_UNLIKE_QUERIES = ("query", "7", "ünder", "(", "Which")


@dataclass(frozen=True, slots=True)
class PreparedText:
    """Text that is safe to put in a prompt, and what had to be done to it."""

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
    """Makes one checkpoint's prompts, of one template and form.

    Placeholder tokens that the tokenizer lacks are added to it in memory; their ids may lie
    beyond the model's embedding matrix, which is harmless since slots are never looked up.

    Args:
        template: the texts.
        tokenizer: the LLM's.
        query_token: whether the checkpoint reads the query's embedding.
        form: what the prompt holds of a passage.
        numbers: whether the LLM is asked for passages' numbers instead of their embeddings.

    Attributes:
        hash: sixteen hex digits over the texts, the chat template and the rules for what is
            filled in.

    Raises:
        CheckpointError: the template has no place for a query embedding.
    """

    def __init__(
        self,
        template: PromptTemplate,
        tokenizer: "PreTrainedTokenizerBase",
        *,
        query_token: bool,
        form: PassageForm = "embeddings",
        numbers: bool = False,
    ) -> None:
        if query_token and not template.has_query_slot:
            raise CheckpointError(
                f"prompt {template.name!r} has no place for a query embedding, but the checkpoint "
                f"sets query_token: true. Expected a prompt with one, such as {COMPACT_V1.name!r}"
            )
        self.template = template
        self.form = form
        self._numbers = numbers
        self._pieces = template.pieces(form, query_token=query_token, numbers=numbers)
        # An answer in numbers does not begin with the query, and texts alone hold no embedding.
        self.query_token = any(QUERY_TOKEN in piece for piece in self._pieces)
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
        rules = [MAX_QUERY_TOKENS, MAX_PASSAGE_TOKENS]
        hashed = json.dumps([template.name, *self._pieces, self._chat_template, *rules])
        self.hash = hashlib.sha256(hashed.encode()).hexdigest()[:16]

    def prepare(self, query: str) -> PreparedText:
        """Clean a query, break the markers in it by a space after their first character, and keep
        its first 256 tokens."""
        return self._prepare(clean_text(query), MAX_QUERY_TOKENS)

    def prepare_passage(self, text: str) -> PreparedText:
        """Clean a passage's text, so that nothing in it passes for structure or for a passage's
        number, and keep its first 256 tokens."""
        return self._prepare(
            re.sub(r"\[(\d+)\]", r"(\1)", clean_text(text).strip()), MAX_PASSAGE_TOKENS
        )

    def build(self, query: PreparedText, passages: int, texts: Sequence[str] = ()) -> Prompt:
        """The prompt for a window.

        Args:
            query: what `prepare` made of it.
            passages: how many are in the window.
            texts: one for each of them, by `prepare_passage`; none where `form` is embeddings.

        Raises:
            QualityError: a text changed the prompt's structure in spite of its preparation.
        """
        ids = self._tokenise(query.text, passages, texts)
        if passages not in self._structure:
            plain = self._tokenise("query", passages, ["text"] * passages)
            self._structure[passages] = [token for token in plain if token in self._added_ids]
        if [token for token in ids if token in self._added_ids] != self._structure[passages]:
            raise QualityError("the text of query or passages adds special tokens to the prompt")
        slots = [i for i, token in enumerate(ids) if token == self._passage_id]
        query_slots = [i for i, token in enumerate(ids) if token == self._query_id]
        expected = passages if self.form != "text" else 0
        if len(slots) != expected or len(query_slots) != self.query_token:
            raise QualityError(
                f"prompt {self.template.name!r} has {len(slots)} passage and {len(query_slots)} "
                f"query slots, expected {expected} and {int(self.query_token)}: "
                f"the chat template drops or repeats part of the message"
            )
        return Prompt(ids, slots, query_slots[0] if query_slots else None)

    def opening(self, passages: int) -> list[int]:
        """The token ids that prompts of so many passages begin with, whatever the query is."""
        texts = ["text"] * passages
        prompts = [self._tokenise(query, passages, texts) for query in _UNLIKE_QUERIES]
        slots = {self._passage_id, self._query_id}
        shared = takewhile(lambda tokens: len({*tokens}) == 1, zip(*prompts, strict=False))
        return [token for token, *_ in takewhile(lambda tokens: tokens[0] not in slots, shared)]

    def answer_tokens(self, passages: int) -> int:
        """Tokens that a window's answer takes at most: a whole ranking in numbers and some to
        spare, or an embedding a passage."""
        if not self._numbers:
            return passages
        answer = " > ".join(f"[{number}]" for number in range(1, passages + 1))
        return len(self._tokenizer(answer, add_special_tokens=False)["input_ids"]) + 8

    @property
    def stop_tokens(self) -> set[int]:
        """What ends an answer in numbers."""
        return {self._tokenizer.eos_token_id, self._tokenizer.pad_token_id} - {None}

    def read_answer(self, tokens: list[int]) -> str:
        """The text of an answer in numbers."""
        return str(self._tokenizer.decode(tokens))

    def _prepare(self, text: str, max_tokens: int) -> PreparedText:
        defused = 0
        while self._marker_pattern.search(text):  # what a break leaves may be a marker, too
            text, broken = self._marker_pattern.subn(lambda m: f"{m[0][0]} {m[0][1:]}", text)
            defused += broken
        offsets = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)[
            "offset_mapping"
        ]
        if len(offsets) <= max_tokens:
            return PreparedText(text, was_cut=False, markers_defused=defused)
        start, end = offsets[max_tokens - 1]
        # A character that several tokens spell is kept whole or not at all.
        within_character = offsets[max_tokens][0] < end
        return PreparedText(text[: start if within_character else end], True, defused)

    def message(self, query: str, passages: int, texts: Sequence[str] = ()) -> str:
        """The user message of a window, before the chat template; arguments as for `build`."""
        opening, query_line, line, closing, _ = self._pieces
        shown = texts if self.form != "embeddings" else [""] * passages
        return "".join(
            [
                opening.format(n=passages, query=query),
                query_line,
                *(line.format(i=i, text=text) for i, text in enumerate(shown, 1)),
                closing.format(n=passages, query=query),
            ]
        )

    def _tokenise(self, query: str, passages: int, texts: Sequence[str]) -> list[int]:
        messages = [{"role": "user", "content": self.message(query, passages, texts)}]
        try:
            rendered: Any = self._tokenizer.apply_chat_template(
                messages,
                chat_template=self._chat_template,
                add_generation_prompt=True,
                tokenize=False,
            )
        except Exception as error:  # a template is a program, and fails as programs do
            raise CheckpointError(
                f"{self._tokenizer.name_or_path}: its chat template fails: {error}. Mend "
                "chat_template in tokenizer_config.json, or the file chat_template.jinja"
            ) from error
        return self._tokenizer(rendered + self._pieces[-1], add_special_tokens=False)["input_ids"]


def _marker_pattern(tokens: list[str]) -> re.Pattern[str]:
    """Matches chat markers, slots and `tokens`; white space and single characters, which a space
    cannot break and which carry no structure, are left alone."""
    markers = {marker for marker in (*SLOT_TOKENS, *tokens) if len(marker.strip()) > 1}
    longest_first = sorted(markers, key=lambda marker: (-len(marker), marker))
    return re.compile("|".join([*map(re.escape, longest_first), CHAT_MARKERS]))
