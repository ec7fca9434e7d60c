"""What is trained: stock LLM, projector and residual with gradients.

It computes what `perank_tasks.perank.model` computes, by the layers of transformers' own Llama and
Mistral: at step k of teacher forcing the logits are those that the engine has once it has put out
the golden ranking's first k passages.

Shapes as in `batches`; H is the LLM's hidden size.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import rotate_half

from perank_tasks.errors import ConfigError
from perank_tasks.models.products import linear, replace_linears
from perank_tasks.perank.checkpoint import Checkpoint
from perank_tasks.perank.llm import meta_body
from perank_tasks.perank.projector import build_projector
from perank_tasks.training.batches import AlignmentBatch, RankingBatch, Rows
from perank_tasks.training.recipe import RankRecipe, StageRecipe


class Trainee(nn.Module):
    """LLM body and projector of a checkpoint, of which the recipe says what learns.

    Its state dict holds what learns, and nothing else. `lora_scale` scales the low-rank additions,
    where there are any. What learns is float32; what does not stays, where activations are in
    bfloat16, as it is stored: a 7B is not doubled before it reaches the GPU.

    Args:
        checkpoint: where it begins; its tensors are taken over.
        recipe: which part of it learns.
    """

    body: Any
    lora_scale = 1.0

    def __init__(self, checkpoint: Checkpoint, recipe: StageRecipe) -> None:
        super().__init__()
        self.begun = checkpoint
        self.body = meta_body(checkpoint.llm)
        tensors = checkpoint.body
        if recipe.precision == "float32":
            tensors = {name: tensor.float() for name, tensor in tensors.items()}
        self.body.load_state_dict(tensors, assign=True)
        # Its tables are no part of the state dict, and have no memory yet.
        self.body.rotary_emb = type(self.body.rotary_emb)(config=checkpoint.llm)
        self.projector = build_projector(
            checkpoint.projector_type, checkpoint.embedding_size, checkpoint.llm.hidden_size
        )
        self.projector.load_state_dict(
            {name: tensor.float() for name, tensor in checkpoint.projector.items()}
        )
        replace_linears(self.body)
        self.body.requires_grad_(False)
        if recipe.gradient_checkpointing:
            self.body.activation_checkpointing_enable({"use_reentrant": False})
        self.register_state_dict_post_hook(_keep_what_learns)

    def checkpoint(self) -> Checkpoint:
        """What it began with, as far as it has learnt; tensors of their own, on the CPU."""
        state = self.projector.state_dict()
        projector = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
        return replace(self.begun, projector=projector)

    def lora(self) -> dict[str, tuple[Tensor, Tensor]]:
        """{name: (A, B)} of the low-rank additions in the checkpoint's body, (r, in), (out, r)."""
        return {}

    def read(self, rows: Rows, projected: Tensor, projected_query: Tensor | None) -> Tensor:
        """Run rows through the LLM; (B, n, H), the hidden states at `outputs`.

        Args:
            rows: what is read.
            projected: (B, n, H).
            projected_query: (B, H), None where the prompts have no query slot.
        """
        inputs = nn.functional.embedding(rows["ids"], self.body.embed_tokens.weight).float()
        sources = projected
        if projected_query is not None:
            # Passage -1 is the last one: the query is put behind the passages.
            sources = torch.cat([projected, projected_query[:, None]], 1)
        there = sources[rows["slot_rows"], rows["slot_passages"]].to(inputs.dtype)
        inputs = inputs.index_put((rows["slot_rows"], rows["slot_places"]), there)
        positions = torch.arange(inputs.shape[1], device=inputs.device)[None]
        angles = self.body.rotary_emb(inputs, positions)
        hidden = inputs
        for layer in self.body.layers[:-1]:
            hidden = layer(
                hidden, attention_mask=None, position_ids=positions, position_embeddings=angles
            )
        return self.body.norm(_last_layer(self.body.layers[-1], hidden, angles, rows["outputs"]))


class RankingTrainee(Trainee):
    """The model of stage 2."""

    def __init__(self, checkpoint: Checkpoint, recipe: RankRecipe) -> None:
        super().__init__(checkpoint, recipe)
        self.query_token = checkpoint.query_token
        self.prompt_order = checkpoint.prompt_order
        if recipe.trained_llm == "full":
            self.body.requires_grad_(True)
            self.body.embed_tokens.requires_grad_(recipe.train_tokens)
        elif recipe.trained_llm == "lora":
            self._add_lora(recipe)
        for parameter in self.body.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        self.projector.requires_grad_(recipe.train_projector)
        self.t: nn.Parameter | None = None
        self.b: nn.Parameter | None = None
        self.s: nn.Parameter | None = None
        if checkpoint.residual is not None:
            t, b = checkpoint.residual
            self.t = nn.Parameter(torch.tensor(t))
            self.b = nn.Parameter(torch.tensor(b), requires_grad=recipe.train_residual)
        if checkpoint.score_residual is not None:
            self.s = nn.Parameter(
                torch.tensor(checkpoint.score_residual), requires_grad=recipe.train_residual
            )

    def forward(self, batch: RankingBatch) -> dict[str, Tensor]:
        """(B, n, n) logits of step k for passage i, in float32: `plain` and, where the batch has
        texts, `with_texts`."""
        projected = self.projector(batch["embeddings"])
        projected_query = self.projector(batch["query_embeddings"])
        bias = None
        if self.b is not None:
            with torch.autocast(projected.device.type, enabled=False):
                cosines = torch.einsum("bih,bh->bi", projected.float(), projected_query.float())
                bias = self.b * cosines
            if self.s is not None and batch["scores"] is not None:
                bias = bias + self.s * batch["scores"]
        slot_query = projected_query if self.query_token else None
        logits = {}
        for name, rows in (("plain", batch["plain"]), ("with_texts", batch["with_texts"])):
            if rows is None:
                continue
            if name == "plain" and self.prompt_order == "residual":
                assert bias is not None
                rows = _sorted_prompts(rows, bias.detach(), batch["sizes"])
            hidden = self.read(rows, projected, slot_query)
            with torch.autocast(hidden.device.type, enabled=False):
                of_step = torch.einsum("bkh,bih->bki", hidden.float(), projected.float())
            if self.t is not None and bias is not None:
                of_step = self.t * of_step + bias[:, None]
            logits[name] = of_step
        return logits

    def checkpoint(self) -> Checkpoint:
        body = {
            name.replace(".base_layer.", "."): value.detach().cpu().clone()
            for name, value in self.body.named_parameters()
            if ".lora_" not in name
        }
        for name, (a, b) in self.lora().items():
            body[name] = body[name].float() + self.lora_scale * b @ a
        return replace(
            super().checkpoint(),
            body=body,
            residual=None if self.t is None or self.b is None else (self.t.item(), self.b.item()),
            score_residual=None if self.s is None else self.s.item(),
        )

    def lora(self) -> dict[str, tuple[Tensor, Tensor]]:
        state, additions = dict(self.body.named_parameters()), {}
        for name in state:
            layer, is_lora, _ = name.partition("lora_A.")
            if is_lora:
                a, b = (state[f"{layer}lora_{x}.default.weight"].detach().cpu() for x in "AB")
                additions[f"{layer}weight"] = a.clone(), b.clone()
        return additions

    def _add_lora(self, recipe: RankRecipe) -> None:
        # Heavy, and only these trainings need it.
        from peft import LoraConfig, inject_adapter_in_model

        targets = [name.strip() for name in recipe.lora_targets.split(",") if name.strip()]
        config = LoraConfig(
            r=recipe.lora_rank, lora_alpha=recipe.lora_alpha, target_modules=targets
        )
        torch.manual_seed(recipe.seed)
        try:
            inject_adapter_in_model(config, self.body)
        except ValueError as error:
            raise ConfigError(
                f"lora_targets is {recipe.lora_targets!r}: {' '.join(str(error).split())[:200]}"
            ) from error
        replace_linears(self.body)
        for name, parameter in self.body.named_parameters():
            parameter.requires_grad_(".lora_" in name)
        self.lora_scale = recipe.lora_alpha / recipe.lora_rank


class AlignmentTrainee(Trainee):
    """The model of stage 1: only its projector learns.

    Args:
        checkpoint, recipe: as for `Trainee`.
        head: (V, H), the LLM's output embeddings.
    """

    head: Tensor

    def __init__(self, checkpoint: Checkpoint, recipe: StageRecipe, head: Tensor) -> None:
        super().__init__(checkpoint, recipe)
        head = head.float() if recipe.precision == "float32" else head
        self.register_buffer("head", head, persistent=False)

    def forward(self, batch: AlignmentBatch) -> Tensor:
        """(B, n, V) logits of the texts' tokens."""
        hidden = self.read(batch["rows"], self.projector(batch["embeddings"]), None)
        return linear(hidden, self.head.to(hidden.dtype))


def _sorted_prompts(rows: Rows, bias: Tensor, sizes: Tensor) -> Rows:
    """Rows whose prompts hold the passages best first by `bias` (B, n), as the engine has it; the
    answers are as they were. Equal ones stay in the given order."""
    beyond = torch.arange(bias.shape[1], device=bias.device) >= sizes[:, None]
    order = bias.masked_fill(beyond, -torch.inf).argsort(dim=1, descending=True, stable=True)
    row, passage = rows["slot_rows"], rows["slot_passages"]
    in_prompt = (rows["slot_places"] <= rows["outputs"][row, 0]) & (passage >= 0)
    moved = torch.where(in_prompt, order[row, passage.clamp(min=0)], passage)
    return {**rows, "slot_passages": moved}


def _last_layer(
    layer: Any, hidden: Tensor, angles: tuple[Tensor, Tensor], outputs: Tensor
) -> Tensor:
    """The LLM's last layer at `outputs` (B, n) only: of all other places, keys and values are
    all that is read. With a compact prompt and 4 layers this saves a fifth of a step.

    Args:
        layer: a decoder layer of Llama or Mistral.
        hidden: (B, L, H), what comes into it.
        angles: cosines and sines (1, L, head size) of the rotary embedding.
        outputs: as said.

    Returns:
        (B, n, H)
    """
    attention = layer.self_attn
    places = outputs[..., None].expand(-1, -1, hidden.shape[2])
    normed = layer.input_layernorm(hidden)
    q, k, v = (
        projection(x).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
        for projection, x in (
            (attention.q_proj, normed.gather(1, places)),
            (attention.k_proj, normed),
            (attention.v_proj, normed),
        )
    )
    cos, sin = angles
    q_cos, q_sin = cos[0][outputs][:, None], sin[0][outputs][:, None]
    q = (q * q_cos + rotate_half(q) * q_sin).to(v.dtype)
    k = (k * cos[:, None] + rotate_half(k) * sin[:, None]).to(v.dtype)
    seen = torch.arange(hidden.shape[1], device=hidden.device) <= outputs[:, None, :, None]
    attended = nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=seen, scale=attention.scaling, enable_gqa=True
    )
    x = hidden.gather(1, places) + attention.o_proj(attended.transpose(1, 2).flatten(2))
    return x + layer.mlp(layer.post_attention_layernorm(x))


def _keep_what_learns(
    module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: dict[str, Any]
) -> None:
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            state.pop(prefix + name, None)
