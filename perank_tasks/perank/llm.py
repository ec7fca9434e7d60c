"""The LLM's body: in, embedded tokens and a key/value cache; out, last hidden states.

The forward pass of Llama and Mistral, for ranking only: no gradients, no vocabulary head, and
in the last layer nothing but keys and values for positions that nobody reads. Rows of a batch
are padded on the right, where the causal mask hides what follows; each row continues at its
own place in the cache, so that a prefix that is already there is not computed again.

Attention always looks at the whole length of a cache, and masks what is not there: what a row's
result is then depends on that length, on a GPU also on the number of rows, and not on the others.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

from perank_tasks.models.products import Matrix

FAMILIES = ("llama", "mistral")
"""What `model_type` may be."""

ACTIVATIONS = ("silu", "gelu")
"""What `hidden_act` may be."""

# Tokens that go through the MLP at once on a CPU: what they become there stays in its cache.
_CPU_MLP_TOKENS = 1024


# Queries of one row go through attention in multiples of this.
_ATTENTION_ROWS = 4


def meta_body(llm: PretrainedConfig) -> PreTrainedModel:
    """The LLM body without memory behind its tensors: names and shapes only."""
    with torch.device("meta"):
        return AutoModel.from_config(llm)


class Cache:
    """Keys and values of up to `rows` sequences of up to `length` tokens.

    Attributes:
        keys, values: (layers, rows, length, key/value heads, head size).
    """

    def __init__(self, llm: "Llm", rows: int, length: int) -> None:
        self.rows, self.length = rows, length
        shape = (len(llm.layers), rows, length, llm.kv_heads, llm.head_size)
        self.keys = torch.zeros(shape, device=llm.device, dtype=llm.dtype)
        self.values = torch.zeros(shape, device=llm.device, dtype=llm.dtype)

    def put(self, row: int, prefix: "Prefix") -> None:
        """Let a row begin with a prefix."""
        length = len(prefix.ids)
        self.keys[:, row, :length] = prefix.keys
        self.values[:, row, :length] = prefix.values

    def prefix(self, row: int, ids: list[int]) -> "Prefix":
        """What a row begins with, as something that others can begin with, too."""
        keys, values = self.keys[:, row, : len(ids)], self.values[:, row, : len(ids)]
        return Prefix(ids, keys.clone(), values.clone())

    def clear(self) -> None:
        """Fill it with zeros."""
        self.keys.zero_()
        self.values.zero_()


@dataclass(frozen=True)
class Prefix:
    """Tokens that prompts begin with, and what the LLM made of them.

    `keys` and `values` are (layers, len(ids), key/value heads, head size).
    """

    ids: list[int]
    keys: Tensor
    values: Tensor


@dataclass(frozen=True)
class _Layer:
    """One layer's weights; `qkv` is the rows of three matrices in one. The last layer has them also
    apart, `q` and `kv`: of positions that nobody reads, it makes keys and values only."""

    input_norm: Tensor
    qkv: Matrix
    q_and_kv: tuple[Matrix, Matrix] | None
    out: Matrix
    mlp_norm: Tensor
    gate: Matrix
    up: Matrix
    down: Matrix


class _Weights:
    """A state dict's tensors, emptied as they are taken over."""

    def __init__(self, tensors: dict[str, Tensor], device: torch.device, dtype: torch.dtype):
        self._tensors, self._device, self._dtype = tensors, device, dtype

    def take(self, *names: str) -> Tensor | None:
        """Those of these that there are, in one; None where there are none."""
        parts = [self._tensors.pop(name) for name in names if name in self._tensors]
        return torch.cat(parts).to(self._device, self._dtype) if parts else None

    def need(self, *names: str) -> Tensor:
        """All of these, in one."""
        return torch.cat([self._tensors.pop(n) for n in names]).to(self._device, self._dtype)

    def matrix(self, name: str) -> Matrix:
        """A weight and its bias, if it has one."""
        return Matrix(self.need(f"{name}.weight"), self.take(f"{name}.bias"))


class Llm:
    """A Llama or Mistral body on a device.

    Args:
        config: LlamaConfig or MistralConfig.
        tensors: what the state dict of a `LlamaModel` or `MistralModel` of it holds; emptied as
            they are taken over, so that there is never a second copy of the whole.
        device, dtype: where and in what precision it runs.

    Attributes:
        embeddings: (V, H), the input embedding of every token.
        max_positions: positions that it can tell apart and attend to, one another's.
    """

    def __init__(
        self,
        config: PretrainedConfig,
        tensors: dict[str, Tensor],
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.device, self.dtype = device, dtype
        self.hidden_size: int = config.hidden_size
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads
        self.head_size: int = (
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        )
        self.epsilon: float = config.rms_norm_eps
        self.activation: str = config.hidden_act
        # Beyond a sliding attention window, a token no longer sees the first ones.
        self.max_positions: int = min(
            config.max_position_embeddings,
            getattr(config, "sliding_window", None) or config.max_position_embeddings,
        )

        weights = _Weights(tensors, device, dtype)
        self.embeddings = weights.need("embed_tokens.weight")
        self.norm = weights.need("norm.weight")
        last = config.num_hidden_layers - 1
        self.layers = [self._layer(weights, i, is_last=i == last) for i in range(last + 1)]
        rotary: Any = type(meta_body(config).rotary_emb)
        self.rotary = rotary(config=config).to(device)
        self._cos = self._sin = torch.empty(0, device=device)

    def _layer(self, weights: "_Weights", index: int, *, is_last: bool) -> _Layer:
        attention, mlp = f"layers.{index}.self_attn", f"layers.{index}.mlp"
        projections = [f"{attention}.{part}_proj" for part in "qkv"]
        qkv = weights.need(*(f"{name}.weight" for name in projections))
        bias = weights.take(*(f"{name}.bias" for name in projections))
        q_and_kv = None
        if is_last:
            queries = self.heads * self.head_size
            q_bias, kv_bias = (None, None) if bias is None else bias.tensor_split([queries])
            q_and_kv = Matrix(qkv[:queries], q_bias), Matrix(qkv[queries:], kv_bias)
        return _Layer(
            input_norm=weights.need(f"layers.{index}.input_layernorm.weight"),
            qkv=Matrix(qkv, bias),
            q_and_kv=q_and_kv,
            out=weights.matrix(f"{attention}.o_proj"),
            mlp_norm=weights.need(f"layers.{index}.post_attention_layernorm.weight"),
            # In one, they would be a matrix that is slower on a CPU than two halves.
            gate=weights.matrix(f"{mlp}.gate_proj"),
            up=weights.matrix(f"{mlp}.up_proj"),
            down=weights.matrix(f"{mlp}.down_proj"),
        )

    def parameters(self) -> int:
        """Weights that every token is multiplied with: all but the token embeddings."""
        return sum(
            matrix.elements
            for layer in self.layers
            for matrix in (layer.qkv, layer.out, layer.gate, layer.up, layer.down)
        )

    def weight_bytes(self) -> int:
        """What weights and token embeddings take."""
        return (self.parameters() + self.embeddings.numel()) * self.dtype.itemsize

    def flops(self, tokens: int, attended: int) -> int:
        """Floating-point operations, two a multiply-add, of a forward pass.

        Args:
            tokens: that go through it.
            attended: query-key pairs, summed over its tokens.
        """
        attention = 4 * attended * self.heads * self.head_size * len(self.layers)
        return 2 * tokens * self.parameters() + attention

    def cache_bytes(self, tokens: int) -> int:
        """What `tokens` tokens take in a `Cache`."""
        size = self.dtype.itemsize
        return 2 * len(self.layers) * tokens * self.kv_heads * self.head_size * size

    @torch.inference_mode()
    def forward(
        self,
        inputs: Tensor,
        cache: Cache,
        *,
        rows: slice | Tensor,
        starts: Tensor,
        ends: Tensor,
        every: bool = False,
    ) -> Tensor:
        """Run new tokens through the LLM and put their keys and values into the cache.

        Args:
            inputs: (B, L, H) embedded tokens, row i's padded on the right to L.
            cache: its `rows` hold what came before.
            rows: of the cache, B of them: a slice, or their numbers.
            starts: (B,) position of each row's first new token; those before it are cached.
            ends: (B,) number of each row's new tokens, 1 to L.
            every: whether all tokens' hidden states are wanted, not the last ones'.

        Returns:
            (B, H), the normed hidden state of each row's last new token; (B, L, H) of `every` one.
        """
        batch, length, _ = inputs.shape
        offsets = torch.arange(length, device=self.device)
        # Padding may reach beyond the cache; no row's own tokens reach its last position here.
        positions = (starts[:, None] + offsets).clamp_(max=cache.length - 1)
        cos, sin = self._angles()
        angles = cos[positions][:, :, None], sin[positions][:, :, None]
        row_index = torch.arange(batch, device=self.device)
        last = row_index * length + ends - 1
        place = torch.arange(cache.rows, device=self.device)[rows, None], positions
        columns = torch.arange(cache.length, device=self.device)
        mask = self._mask(columns <= positions[..., None])
        last_mask = self._mask(columns < (starts + ends)[:, None, None])

        x = inputs.reshape(batch * length, -1)
        split = self.heads * self.head_size
        for index, layer in enumerate(self.layers):
            keys, values = cache.keys[index], cache.values[index]
            y = F.rms_norm(x, (self.hidden_size,), layer.input_norm, self.epsilon)
            q_and_kv = layer.q_and_kv if length > 1 and not every else None
            if q_and_kv is not None:
                q = q_and_kv[0](y[last]).view(batch, 1, -1, self.head_size)
                q_angles = angles[0].flatten(0, 1)[last], angles[1].flatten(0, 1)[last]
                q = _rotate(q, q_angles[0][:, None], q_angles[1][:, None])
                x = x[last]
                kv = q_and_kv[1](y).view(batch, length, 2 * self.kv_heads, self.head_size)
                k = _rotate(kv[:, :, : self.kv_heads], *angles)
            else:
                qkv = layer.qkv(y).view(batch, length, -1, self.head_size)
                qk = _rotate(qkv[:, :, : self.heads + self.kv_heads], *angles)
                q, k = qk[:, :, : self.heads], qk[:, :, self.heads :]
                kv = qkv[:, :, self.heads :]
            keys[place] = k
            values[place] = kv[:, :, self.kv_heads :]
            seen = mask if q_and_kv is None else last_mask
            attended = _attend(q, keys[rows], values[rows], seen)
            x = x + layer.out(attended.reshape(len(x), split))
            x = self._add_mlp(layer, x)
        x = F.rms_norm(x, (self.hidden_size,), self.norm, self.epsilon)
        return x.view(batch, length, -1) if every else x

    def _add_mlp(self, layer: _Layer, x: Tensor) -> Tensor:
        chunks = -(-len(x) // _CPU_MLP_TOKENS) if self.device.type == "cpu" else 1
        for part in x.chunk(chunks):
            y = F.rms_norm(part, (self.hidden_size,), layer.mlp_norm, self.epsilon)
            gate = layer.gate(y)
            gate = F.silu(gate, inplace=True) if self.activation == "silu" else F.gelu(gate)
            gate *= layer.up(y)
            part += layer.down(gate)
        return x

    def _mask(self, seen: Tensor) -> Tensor:
        """(B, L, K), which keys each token sees -> (B, 1, L, K), what is added to its logits."""
        mask = torch.zeros(seen.shape, device=self.device, dtype=self.dtype)
        return mask.masked_fill_(~seen, -torch.inf)[:, None]

    def _angles(self) -> tuple[Tensor, Tensor]:
        """Cosines and sines (positions, head size) of the rotary embedding.

        Made once and never replaced: CUDA graphs know them by their place in memory."""
        if not len(self._cos):
            every = torch.arange(self.max_positions, device=self.device)[None]
            like = torch.empty(0, device=self.device, dtype=self.dtype)
            cos, sin = self.rotary(like, every)
            self._cos, self._sin = cos[0], sin[0]
        return self._cos, self._sin


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding of (B, L, heads, D), as Llama pairs its halves."""
    half = x.shape[-1] // 2
    low, high = x[..., :half], x[..., half:]
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    torch.mul(low, cos[..., :half], out=out[..., :half]).addcmul_(high, sin[..., :half], value=-1)
    torch.mul(high, cos[..., half:], out=out[..., half:]).addcmul_(low, sin[..., half:])
    return out


def _attend(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Grouped-query attention: q (B, L, heads, D), keys and values (B, K, kv heads, D)."""
    batch, length, heads, size = q.shape
    groups = heads // keys.shape[2]
    keys, values = keys.transpose(1, 2), values.transpose(1, 2)
    if length == 1:
        # A group's queries stand in for positions: keys and values need not be repeated.
        q = q.view(batch, heads // groups, groups, size)
        out = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        return out.reshape(batch, 1, heads, size)
    # A CPU sums the last few of an uneven number of rows in another order.
    missing = -length % _ATTENTION_ROWS
    if missing:
        q, mask = F.pad(q, (0, 0, 0, 0, 0, missing)), F.pad(mask, (0, 0, 0, missing))
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2), keys, values, attn_mask=mask, enable_gqa=groups > 1
    )
    return out.transpose(1, 2)[:, :length]
