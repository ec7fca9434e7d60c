"""PE-Rank at its plainest: in, a checkpoint's folder; out, rankings to hold the engine against.

Written from the paper (arXiv 2406.14848) and from what the reference does. It shares no code with
the engine: prompts are spelled out here, tokens come from the tokenisers' own libraries, the LLM
is the stock one of transformers in float32, and every decoding step is a forward pass over the
whole input. One window at a time, no batch, no padding, no cache.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaModel, MistralConfig, MistralModel

STOCK = {"llama": (LlamaConfig, LlamaModel), "mistral": (MistralConfig, MistralModel)}

PASSAGE = "<PLACEHOLDER>"
QUERY = "<QUERY>"


def released_prompt(query: str, n: int) -> str:
    """The user message that the published weights were trained with."""
    passages = "".join(f"Passage {i}: [{PASSAGE}]\n\n" for i in range(1, n + 1))
    return (
        f"I will provide you with {n} passages, each with a special token representing the passage "
        f"enclosed in [], followed by original text.\n"
        f"Rank the passages based on their relevance to the search query: {query}.\n"
        f"{passages}"
        f"Search Query: {query}.\n"
        f"Rank the {n} relatively ordered passages above based on their relevance to the search "
        f"query, output the ranking in descending order. Only output the {n} unique special token "
        f"in the ranking.\n\n"
    )


def compact_prompt(query: str, n: int, *, query_token: bool) -> str:
    """The short message of our own checkpoints."""
    line = f"{QUERY}\n" if query_token else ""
    closing = f"\nRank these {n} passages by relevance to the query, best first."
    return f"Query: {query}\n{line}{PASSAGE * n}{closing}"


@dataclass
class Ranking:
    """A list's order, best first, and how far from a toss-up it was.

    `gap` is the least relative difference, over all steps, of the best logit from the best one of
    a passage with another embedding; `forwards` counts passes through the LLM, `windows` ranges
    of more than one passage.
    """

    order: list[int]
    gap: float = float("inf")
    forwards: int = 0
    windows: int = 0


@dataclass
class Twin:
    """The checkpoint in a folder, of either layout, whose tokenizer has the golden template."""

    folder: Path
    config: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.config = json.loads((self.folder / "config.json").read_text())
        self.is_own = self.config.get("format") == "perank"
        tensors = all_tensors(self.folder)
        if self.is_own:
            self.base = self.folder / self.config["base_model"]
            llm = json.loads((self.base / "config.json").read_text())
            llm["num_hidden_layers"] = self.config["num_layers"]
            body = all_tensors(self.base)
            for key, low in tensors.items():
                if key.startswith("lora_a."):
                    name = key.removeprefix("lora_a.")
                    high = tensors[f"lora_b.{name}"]
                    body[f"model.{name}"] += self.config["lora_scale"] * (high @ low)
            prefix = "projector."
        else:
            self.base = self.folder
            llm = self.config | {"model_type": self.config["model_type"].removeprefix("embed_")}
            body, prefix = tensors, "model.projector."
        self.projector = {
            key.removeprefix(prefix): value
            for key, value in tensors.items()
            if key.startswith(prefix)
        }
        self.t, self.b, self.s = 1.0, 0.0, 0.0
        if self.config.get("residual"):
            self.t, self.b = tensors["residual.t"].item(), tensors["residual.b"].item()
        if self.config.get("score_residual"):
            self.s = tensors["residual.s"].item()

        kind, stock = STOCK[llm.pop("model_type")]
        config = kind(**llm)
        config.vocab_size = len(body["model.embed_tokens.weight"])
        config.pad_token_id = None
        self.llm = stock(config).eval()
        self.llm.load_state_dict({name: body[f"model.{name}"] for name in self.llm.state_dict()})

    @torch.inference_mode()
    def rank(
        self,
        query: str,
        vectors: np.ndarray,
        query_vector: np.ndarray | None = None,
        scores: np.ndarray | None = None,
        *,
        window: int,
        step: int,
        outputs: int | None = None,
    ) -> Ranking:
        """Rank a list by the reference's sliding window, from the back.

        Args:
            query: its text, without markers.
            vectors: (n, d), L2-normalised, best first by the first stage.
            query_vector: (d,), where the checkpoint uses it.
            scores: (n,), the first stage's, where the checkpoint uses them.
            window, step: passages ranked together, places it moves.
            outputs: passages a window puts out, the others following as they came; None: all.
        """
        ranking = Ranking(list(range(len(vectors))))
        start, end = len(vectors) - window, len(vectors)
        if start + step == 0:
            # The reference's loop never ranks a list of exactly window - step: a flaw.
            self._rank_range(ranking, 0, end, query, vectors, query_vector, scores, outputs)
        while end > 0 and start + step != 0:
            start = max(start, 0)
            self._rank_range(ranking, start, end, query, vectors, query_vector, scores, outputs)
            start, end = start - step, end - step
        return ranking

    def _rank_range(
        self,
        ranking: Ranking,
        start: int,
        end: int,
        query: str,
        vectors: np.ndarray,
        query_vector: np.ndarray | None,
        scores: np.ndarray | None,
        outputs: int | None,
    ) -> None:
        members = ranking.order[start:end]
        if self.config.get("prompt_order") == "residual":
            assert query_vector is not None
            asked = self.project(query_vector)
            opinion = {
                m: self.b * (asked @ self.project(vectors[m])).item()
                + self.s * (0.0 if scores is None else float(scores[m]))
                for m in members
            }
            members = sorted(members, key=lambda m: -opinion[m])
        # Projected once for every different vector, so that duplicates are the same to the bit.
        vector_names = [vectors[member].tobytes() for member in members]
        known = {
            name: self.project(vectors[member])
            for name, member in zip(vector_names, members, strict=True)
        }
        given = [0.0 if scores is None else float(scores[member]) for member in members]
        names = list(zip(vector_names, given, strict=True))
        projected = {name: known[name[0]] for name in names}
        projected_query = None if query_vector is None else self.project(query_vector)
        inputs = self.inputs(query, [projected[name] for name in names], projected_query)
        left, ranked = list(range(len(members))), []
        ranking.windows += len(left) > 1
        while len(left) > 1 and len(ranked) < (outputs or len(members)):
            states = self.llm(inputs_embeds=torch.stack(inputs)[None], use_cache=False)
            hidden = states.last_hidden_state[0, -1]
            ranking.forwards += 1
            logits = {
                name: self.logit(hidden, vector, projected_query, name[1])
                for name, vector in projected.items()
            }
            best = max(left, key=lambda i: logits[names[i]])  # of equals, the first
            first = logits[names[best]]
            for i in left:
                if names[i] != names[best]:
                    other = logits[names[i]]
                    gap = (first - other) / max(abs(first), abs(other), 1e-30)
                    ranking.gap = min(ranking.gap, gap)
            left.remove(best)
            ranked.append(best)
            inputs.append(projected[names[best]])
        ranking.order[start:end] = [members[i] for i in ranked + left]

    def logit(
        self, hidden: Tensor, passage: Tensor, query: Tensor | None, score: float = 0.0
    ) -> float:
        """h·p, or t·(h·p) + b·(q·p) with a residual, + s·score with one that reads scores."""
        logit = self.t * (hidden @ passage)
        if self.b:
            assert query is not None
            logit = logit + self.b * (query @ passage) + self.s * score
        return logit.item()

    def project(self, vector: np.ndarray) -> Tensor:
        """An embedding (d,) in the LLM's input space (H,)."""
        kind = self.config["projector_type"]
        states = torch.from_numpy(vector.copy())
        if kind == "identity":
            return states
        if kind == "linear":
            return self.projector["weight"] @ states + self.projector["bias"]
        for layer in range(int(kind.removeprefix("mlp").removesuffix("x_gelu"))):
            if layer:
                states = functional.gelu(states)
            weight = self.projector[f"{2 * layer}.weight"]
            states = weight @ states + self.projector[f"{2 * layer}.bias"]
        return states

    def inputs(
        self, query: str, passages: list[Tensor], query_vector: Tensor | None
    ) -> list[Tensor]:
        """The prompt's input embeddings, one (H,) a token."""
        waiting = iter(passages)
        rows = []
        for token in self.tokens(query, len(passages)):
            if token == PASSAGE:
                rows.append(next(waiting))
            elif token == QUERY:
                assert query_vector is not None
                rows.append(query_vector)
            else:
                rows.append(self.llm.embed_tokens.weight[token])
        assert next(waiting, None) is None
        return rows

    def tokens(self, query: str, n: int) -> list[int | str]:
        """The prompt's token ids, with `PASSAGE` and `QUERY` where embeddings go."""
        has_query, answer = self.is_own and self.config["query_token"], ""
        if self.is_own and self.config["prompt"] == "compact-v1":
            message = compact_prompt(query, n, query_token=has_query)
        elif self.is_own and self.config["prompt"] == "compact-v2":
            message = compact_prompt(query, n, query_token=False)
            answer = QUERY if has_query else ""
        else:
            message = released_prompt(query, n)
        if (self.base / "tokenizer.model").is_file():
            pieces = SentencePieceProcessor(model_file=str(self.base / "tokenizer.model"))
            ids: list[int | str] = [pieces.bos_id()]
            for i, text in enumerate(f"[INST] {message} [/INST]".split(PASSAGE)):
                ids += [PASSAGE] * (i > 0) + pieces.encode(text)
            return [*ids, answer] if answer else ids
        tokenizer = Tokenizer.from_file(str(self.base / "tokenizer.json"))
        tokenizer.add_special_tokens([PASSAGE, QUERY])
        slots = {tokenizer.token_to_id(name): name for name in (PASSAGE, QUERY)}
        encoded = tokenizer.encode(f"<s>[INST] {message} [/INST]{answer}", add_special_tokens=False)
        return [slots.get(token, token) for token in encoded.ids]


def all_tensors(folder: Path) -> dict[str, Tensor]:
    """The tensors of all safetensors files in a folder."""
    return {
        name: tensor
        for path in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }
