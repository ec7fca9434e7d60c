"""The ranking model: in, prompts and embeddings; out, hidden states and one logit a passage.

    projector   embeddings (n, d)              -> projected p (n, H), as it is: no norm, no scale
    LLM body    prompt with p in its slots     -> last hidden state h (B, H); no vocabulary head
    logit       h·p_i, or with residual t·(h·p_i) + b·(p_q·p_i), p_q the projected query

H is the LLM's hidden size, d the embedder's, B windows in a batch, n passages (paper,
sections 3.1 and 3.3; the residual is that of ResRank, arXiv 2604.22180).
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    LlamaModel,
    MistralModel,
    PretrainedConfig,
    PreTrainedModel,
)

from perank_tasks.perank.prompt import Prompt

BODIES: dict[str, type[PreTrainedModel]] = {"llama": LlamaModel, "mistral": MistralModel}


class RankingModel(nn.Module):
    """LLM body, projector and residual. Weights are given by `load`, or stay random.

    Args:
        llm: configuration of the body, LlamaConfig or MistralConfig.
        projector_type: `linear`, `mlpNx_gelu` or `identity`.
        embedding_size: d.
        residual: (t, b), None for a model without.
    """

    body: Any
    projector: nn.Module

    def __init__(
        self,
        llm: PretrainedConfig,
        *,
        projector_type: str,
        embedding_size: int,
        residual: tuple[float, float] | None,
    ) -> None:
        super().__init__()
        self.body = BODIES[llm.model_type](llm)
        self.projector = build_projector(projector_type, embedding_size, llm.hidden_size)
        t, b = residual or (1.0, 0.0)
        self.residual_t = nn.Parameter(torch.tensor(t), requires_grad=residual is not None)
        self.residual_b = nn.Parameter(torch.tensor(b), requires_grad=residual is not None)
        self.has_residual = residual is not None

    @classmethod
    def load(
        cls,
        llm: PretrainedConfig,
        body: dict[str, Tensor],
        projector: dict[str, Tensor],
        *,
        projector_type: str,
        embedding_size: int,
        residual: tuple[float, float] | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> "RankingModel":
        """Build the model around tensors of the right names and shapes, without a second copy."""
        with torch.device("meta"):
            model = cls(
                llm,
                projector_type=projector_type,
                embedding_size=embedding_size,
                residual=residual,
            )
        t, b = residual or (1.0, 0.0)
        weights = {f"body.{name}": tensor for name, tensor in body.items()}
        weights |= {f"projector.{name}": tensor for name, tensor in projector.items()}
        placed = {name: tensor.to(device, dtype) for name, tensor in weights.items()}
        placed["residual_t"] = torch.tensor(t, device=device)
        placed["residual_b"] = torch.tensor(b, device=device)
        model.load_state_dict(placed, strict=True, assign=True)
        # Rotary frequencies are no weights: they are computed, and were computed on "meta".
        model.body.rotary_emb = type(model.body.rotary_emb)(config=llm).to(device)
        return model.eval()

    @property
    def device(self) -> torch.device:
        return self.body.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.body.embed_tokens.weight.dtype

    def project(self, embeddings: Tensor) -> Tensor:
        """Embeddings (…, d) of any float dtype -> projected (…, H) in the model's dtype."""
        return self.projector(embeddings.to(self.device, self.dtype))

    def prompt_inputs(
        self, prompts: Sequence[Prompt], projected: Tensor, projected_queries: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Left-padded inputs of a batch of prompts.

        Args:
            prompts: B prompts.
            projected: (B, n_max, H); row i's first `len(prompts[i].passage_slots)` are used.
            projected_queries: (B, H), None where the prompts have no query slot.

        Returns:
            inputs_embeds (B, L, H), attention_mask (B, L) and position_ids (B, L), where L is
            the longest prompt's tokens.
        """
        length = max(len(prompt.input_ids) for prompt in prompts)
        ids = torch.zeros(len(prompts), length, dtype=torch.long)
        mask = torch.zeros(len(prompts), length, dtype=torch.long)
        rows: list[int] = []
        slots: list[int] = []
        passages: list[int] = []
        query_slots: list[int] = []
        for row, prompt in enumerate(prompts):
            pad = length - len(prompt.input_ids)
            ids[row, pad:] = torch.tensor(prompt.input_ids)
            mask[row, pad:] = 1
            rows += [row] * len(prompt.passage_slots)
            slots += [pad + slot for slot in prompt.passage_slots]
            passages += range(len(prompt.passage_slots))
            if prompt.query_slot is not None:
                query_slots.append(pad + prompt.query_slot)
        # Slot tokens may lie beyond the embedding matrix; their rows are overwritten below.
        ids[rows, slots] = 0
        if query_slots:
            ids[range(len(prompts)), query_slots] = 0
        device = self.device
        embeds = self.body.embed_tokens(ids.to(device))
        row_index = torch.tensor(rows, device=device)
        slot_index = torch.tensor(slots, device=device)
        passage_index = torch.tensor(passages, device=device)
        embeds = embeds.index_put((row_index, slot_index), projected[row_index, passage_index])
        if query_slots and projected_queries is not None:
            every = torch.arange(len(prompts), device=device)
            query_index = torch.tensor(query_slots, device=device)
            embeds = embeds.index_put((every, query_index), projected_queries)
        mask = mask.to(device)
        return embeds, mask, (mask.cumsum(1) - 1).clamp(min=0)

    def hidden(
        self, inputs_embeds: Tensor, attention_mask: Tensor, position_ids: Tensor, cache: Any = None
    ) -> tuple[Tensor, Any]:
        """Final hidden states (B, L, H) of the inputs, and the cache grown by them.

        `attention_mask` is (B, cached + L), `position_ids` (B, L).
        """
        output = self.body(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
        )
        return output.last_hidden_state, output.past_key_values

    def bias(self, projected: Tensor, projected_query: Tensor | None) -> Tensor | None:
        """The residual's share of the logits, b·(p_q·p_i), (B, n) in float32.

        It is the same at every step; None for a model without residual.
        """
        if not self.has_residual:
            return None
        if projected_query is None:
            raise ValueError("a model with residual needs the projected query")
        return self.residual_b * _dot(projected, projected_query)

    def logits(self, hidden: Tensor, projected: Tensor, bias: Tensor | None) -> Tensor:
        """One logit a passage, (B, n) in float32.

        Args:
            hidden: h, (B, H).
            projected: p, (B, n, H).
            bias: what `bias` returned for these passages.
        """
        logits = _dot(projected, hidden)
        return logits if bias is None else self.residual_t * logits + bias


def _dot(projected: Tensor, vector: Tensor) -> Tensor:
    """(B, n, H) · (B, H) -> (B, n) in float32.

    Each row is summed by itself: a matrix product may sum equal rows in different orders, and
    duplicates of a passage would no longer tie.
    """
    return (projected.float() * vector.float()[:, None]).sum(-1)


def build_projector(projector_type: str, embedding_size: int, hidden_size: int) -> nn.Module:
    """The map from embeddings to the LLM's input space.

    `linear`; `mlpNx_gelu`: Linear(d, H), then N - 1 times GELU, Linear(H, H); `identity`.

    Raises:
        ValueError: another type, or `identity` between unequal sizes.
    """
    if projector_type == "linear":
        return nn.Linear(embedding_size, hidden_size)
    if projector_type == "identity":
        if embedding_size != hidden_size:
            raise ValueError(
                f"projector_type 'identity' needs embedding_size equal to the LLM's hidden size "
                f"{hidden_size}, found {embedding_size}"
            )
        return nn.Identity()
    match = re.fullmatch(r"mlp([1-9])x_gelu", projector_type)
    if match is None:
        raise ValueError(
            f"projector_type is {projector_type!r}, expected 'linear', 'mlpNx_gelu' with N from "
            f"1 to 9, or 'identity'"
        )
    layers: list[nn.Module] = [nn.Linear(embedding_size, hidden_size)]
    for _ in range(int(match[1]) - 1):
        layers += [nn.GELU(), nn.Linear(hidden_size, hidden_size)]
    return nn.Sequential(*layers)


def projector_shapes(
    projector_type: str, embedding_size: int, hidden_size: int
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the projector's tensors; raises as `build_projector` does."""
    with torch.device("meta"):
        projector = build_projector(projector_type, embedding_size, hidden_size)
    return {name: tuple(tensor.shape) for name, tensor in projector.state_dict().items()}


def meta_body(llm: PretrainedConfig) -> PreTrainedModel:
    """The LLM body without memory behind its tensors: names and shapes only."""
    with torch.device("meta"):
        return BODIES[llm.model_type](llm)
