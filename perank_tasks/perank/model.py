"""The ranking model: in, prompts and embeddings; out, hidden states and one logit a passage.

    projector   embeddings (n, d)              -> projected p (n, H), as it is: no norm, no scale
    LLM body    prompt with p in its slots     -> last hidden state h (B, H); no vocabulary head
    logit       h·p_i, or with residual t·(h·p_i) + b·(p_q·p_i) [+ s·score_i], p_q the projected
                query, score_i the first stage's score

H is the LLM's hidden size, d the embedder's, B windows in a batch, n passages (paper,
sections 3.1 and 3.3; the residual is that of ResRank, arXiv 2604.22180).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from perank_tasks.perank.checkpoint import Checkpoint
from perank_tasks.perank.llm import Cache, Llm, Prefix
from perank_tasks.perank.projector import build_projector
from perank_tasks.perank.prompt import Prompt


class RankingModel:
    """LLM body, projector and residual on a device, for ranking only.

    Args:
        checkpoint: what it is; its `body` is emptied as the tensors are taken over.
        device, dtype: where and in what precision it runs.

    Attributes:
        embedding_size: d.
        residual: (t, b), None for a model without.
        score_residual: s, None for a model that does not read first-stage scores.
        llm: the body.
    """

    def __init__(self, checkpoint: Checkpoint, *, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.embedding_size = checkpoint.embedding_size
        self.residual, self.score_residual = checkpoint.residual, checkpoint.score_residual
        self.llm = Llm(checkpoint.llm, checkpoint.body, device=device, dtype=dtype)
        with torch.device("meta"):
            self._projector = build_projector(
                checkpoint.projector_type, checkpoint.embedding_size, checkpoint.llm.hidden_size
            )
        placed = {name: t.to(device, dtype) for name, t in checkpoint.projector.items()}
        self._projector.load_state_dict(placed, strict=True, assign=True)

    @torch.inference_mode()
    def project(self, embeddings: Tensor) -> Tensor:
        """Embeddings (…, d) of any float dtype -> projected (…, H) in the model's dtype."""
        return self._projector(embeddings.to(self.device, self.dtype))

    @torch.inference_mode()
    def prefix(self, ids: list[int]) -> Prefix:
        """What prompts that begin with these tokens begin with, embeddings not among them."""
        cache = Cache(self.llm, 1, max(1, len(ids)))
        if ids:
            whole = torch.tensor([ids], device=self.device)
            start = torch.zeros(1, dtype=torch.long, device=self.device)
            self.llm.forward(
                self.llm.embeddings[whole],
                cache,
                rows=slice(0, 1),
                starts=start,
                ends=start + len(ids),
            )
        return cache.prefix(0, ids)

    def embed(
        self,
        prompts: Sequence[Prompt],
        starts: Sequence[int],
        projected: Tensor,
        projected_queries: Tensor,
    ) -> Tensor:
        """What the LLM reads of a batch of prompts, from position `starts[i]` of each on.

        Args:
            prompts: B prompts.
            starts: the position of each that comes first.
            projected: (B, n_max, H); row i's first `len(prompts[i].passage_slots)` are used.
            projected_queries: (B, H); read where a prompt has a query slot.

        Returns:
            (B, L, H), L the most tokens that one of them has left; padded on the right.
        """
        length = max(len(p.input_ids) - start for p, start in zip(prompts, starts, strict=True))
        ids = torch.zeros(len(prompts), length, dtype=torch.long)
        slots: list[tuple[int, int, int]] = []
        query_slots: list[tuple[int, int]] = []
        for row, (prompt, start) in enumerate(zip(prompts, starts, strict=True)):
            ids[row, : len(prompt.input_ids) - start] = torch.tensor(prompt.input_ids[start:])
            slots += [
                (row, slot - start, passage)
                for passage, slot in enumerate(prompt.passage_slots)
                if slot >= start
            ]
            if prompt.query_slot is not None and prompt.query_slot >= start:
                query_slots.append((row, prompt.query_slot - start))
        rows, places, passages = torch.tensor(slots, dtype=torch.long).reshape(-1, 3).T
        query_rows, query_places = torch.tensor(query_slots, dtype=torch.long).reshape(-1, 2).T
        # Slot tokens may lie beyond the embedding matrix; their rows are overwritten below.
        ids[rows, places] = 0
        ids[query_rows, query_places] = 0
        embeds = self.llm.embeddings[ids.to(self.device)]
        embeds[rows, places] = projected[rows, passages]
        embeds[query_rows, query_places] = projected_queries[query_rows]
        return embeds

    def bias(
        self, projected: Tensor, projected_query: Tensor | None, scores: Tensor | None = None
    ) -> Tensor | None:
        """The residual's share of the logits, b·(p_q·p_i) [+ s·score_i], (B, n) in float32.

        It is the same at every step; None for a model without residual.

        Args:
            projected: p, (B, n, H).
            projected_query: p_q, (B, H).
            scores: the first stage's, (B, n); None: no passage is ahead of another.
        """
        if self.residual is None:
            return None
        assert projected_query is not None
        bias = self.residual[1] * _dot(projected, projected_query)
        if self.score_residual is None or scores is None:
            return bias
        return bias + self.score_residual * scores

    def logits(self, hidden: Tensor, projected: Tensor, bias: Tensor | None) -> Tensor:
        """One logit a passage, (B, n) in float32.

        Args:
            hidden: h, (B, H).
            projected: p, (B, n, H).
            bias: what `bias` returned for these passages.
        """
        logits = _dot(projected, hidden)
        if self.residual is None or bias is None:
            return logits
        return self.residual[0] * logits + bias


def _dot(projected: Tensor, vector: Tensor) -> Tensor:
    """(B, n, H) · (B, H) -> (B, n) in float32.

    Each row is summed by itself: a matrix product may sum equal rows in different orders, and
    duplicates of a passage would no longer tie.
    """
    return (projected.float() * vector.float()[:, None]).sum(-1)
