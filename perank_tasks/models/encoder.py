"""The checkpoint's own embedder: in, texts; out, vectors as its projector expects them.

Tokens are cut at `max_length`, pooled by the checkpoint's rule and L2-normalised: float32
(n, embedding_size). Weights inside the checkpoint win over those found by name.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoTokenizer

from perank_tasks.errors import CheckpointError, ConfigError
from perank_tasks.models.embedders import Advance, in_batches, token_counts, uncounted
from perank_tasks.models.encoder_spec import EncoderSpec
from perank_tasks.models.find import resolve_model
from perank_tasks.models.products import replace_linears
from perank_tasks.models.quiet import without_bars
from perank_tasks.models.variants import ModelVariant, architecture_code
from perank_tasks.support.text import clean_text

REFERENCE_MAX_LENGTH = 512
"""Tokens of a passage that the PE-Rank reference encodes at inference."""


class Encoder:
    """The embedder of a checkpoint, on `device` in float32.

    Args:
        spec: what the checkpoint says of it.
        weights: its tensors by name, where they are inside the checkpoint.
        owner: the checkpoint, for messages.
        cache: folder for models that have to be unpacked, see `resolve_model`.
        trust_remote_code: run the encoder's own Python code, where its repository has some.

    Raises:
        CheckpointError: it needs remote code that was not opted in to, its weights do not fit
            its configuration, or its width is not the checkpoint's embedding size.
        ConfigError: it cannot be found.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        weights: dict[str, Tensor] | None,
        *,
        owner: str,
        cache: Path,
        device: torch.device,
        trust_remote_code: bool = False,
    ) -> None:
        folder = _config_folder(spec, owner, cache)
        code = architecture_code(folder / "config.json")
        if code and not trust_remote_code:
            raise CheckpointError(
                f"encoder {spec.name!r} of checkpoint {owner!r} is Python code from its "
                f"own repository ({code}), which is not run unless you ask. Either pass "
                f"trust_remote_code=True, if you trust it, or rank from embeddings that were made "
                f"elsewhere: the LLM and the projector need no such code"
            )
        # With remote code its files are fetched by transformers, from where the name says.
        source = spec.name if code and spec.folder is None else folder
        options = {"trust_remote_code": trust_remote_code and bool(code)}
        self._tokenizer = AutoTokenizer.from_pretrained(source, **options)
        if weights is None:
            with without_bars():
                self._model = AutoModel.from_pretrained(source, dtype=torch.float32, **options)
        else:
            config = AutoConfig.from_pretrained(source, **options)
            self._model = AutoModel.from_config(config, dtype=torch.float32, **options)
            _load_inside(self._model, weights, spec.name, owner)
        variant = ModelVariant.parse(spec.name)
        self._prompts: dict[str, str] = {}
        if variant and variant.prompts:
            settings = (folder / "config_sentence_transformers.json").read_text(encoding="utf-8")
            self._prompts = json.loads(settings)["prompts"]
        width = (variant.dimensions if variant else None) or self._model.config.hidden_size
        if width != spec.embedding_size:
            raise CheckpointError(
                f"checkpoint {owner!r}: embedding_size is {spec.embedding_size}, "
                f"but the encoder {spec.name!r} makes vectors of {width}. Name the encoder "
                f"that the projector was trained with"
            )
        self._model.to(device).eval()
        replace_linears(self._model, freeze=True)
        self.device = str(device)
        self._pooling = spec.pooling
        self.dimension = width
        self._max_positions = getattr(self._model.config, "max_position_embeddings", None)
        self.max_length = _own_max_length(folder, self._max_positions)

    @torch.inference_mode()
    def encode(
        self,
        texts: Sequence[str],
        *,
        queries: bool = False,
        max_length: int | None = None,
        advance: Advance = uncounted,
    ) -> np.ndarray:
        """Embed texts: (len(texts), embedding_size) float32, L2-normalised, in order.

        Args:
            queries: whether they are queries, before which some encoders want a prompt.
            max_length: tokens a text is cut at. None: as many as the nightly run takes, a
                sentence-transformers model's own maximum, else the reference's 512.
            advance: is told after each batch of how many texts that was.

        Raises:
            ConfigError: `max_length` is more than the encoder's positions, or not positive.
        """
        max_length = self.max_length if max_length is None else max_length
        limit = self._max_positions or max_length
        if not 1 <= max_length <= limit:
            raise ConfigError(
                f"max_length must be from 1 to the encoder's {limit} tokens, found {max_length}"
            )
        prompt = self._prompts.get("query" if queries else "document", "")
        cleaned = [prompt + clean_text(text) for text in texts]
        embeddings = np.empty((len(cleaned), self.dimension), np.float32)
        for batch in in_batches(cleaned, self._tokenizer, max_length, self.device):
            inputs = self._tokenizer(
                [cleaned[i] for i in batch],
                max_length=max_length,
                truncation=True,
                padding=True,
                return_tensors="pt",
            ).to(self.device)
            states = self._model(**inputs).last_hidden_state
            pooled = _pool(states, inputs["attention_mask"], self._pooling)[:, : self.dimension]
            embeddings[batch] = torch.nn.functional.normalize(pooled, dim=-1).cpu().numpy()
            advance(len(batch))
        return embeddings

    def are_cut(self, texts: Sequence[str]) -> list[bool]:
        """Which of the texts have more than `max_length` tokens."""
        counts = token_counts([clean_text(text) for text in texts], self._tokenizer)
        return (counts > self.max_length).tolist()


def _own_max_length(folder: Path, positions: int | None) -> int:
    """Tokens to cut at: a sentence-transformers model's own, else the reference's."""
    length = REFERENCE_MAX_LENGTH
    settings = folder / "sentence_bert_config.json"
    if settings.is_file():
        own = json.loads(settings.read_text(encoding="utf-8")).get("max_seq_length")
        if own is None:  # newer ones leave it to the tokenizer
            own = json.loads((folder / "tokenizer_config.json").read_bytes())["model_max_length"]
        length = int(own)
    return min(length, positions or length)


def _pool(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Token states (B, L, d) and mask (B, L) -> one vector a text, (B, d)."""
    if pooling == "mean":
        weights = mask[..., None].to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
    positions = torch.arange(mask.shape[1], device=mask.device) * mask
    rows = torch.arange(len(states), device=states.device)
    if pooling == "last_token":
        return states[rows, positions.argmax(1)]
    return states[rows, mask.argmax(1)]


def _config_folder(spec: EncoderSpec, owner: str, cache: Path) -> Path:
    """Where the encoder's config.json and tokenizer lie."""
    try:
        folder = spec.folder or resolve_model(spec.name, cache=cache).folder
    except ConfigError as error:
        raise ConfigError(
            f"the encoder of checkpoint {owner!r} cannot be found, and only ranking from "
            f"embeddings that were made elsewhere needs none; {error}"
        ) from error
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} has no config.json: it is no encoder in Hugging Face form")
    return folder


def _load_inside(
    model: torch.nn.Module, weights: dict[str, Tensor], name_of_encoder: str, owner: str
) -> None:
    expected = model.state_dict()
    for name, tensor in expected.items():
        # The pooler is a head that no pooling rule here reads; many encoders are saved without.
        if name not in weights and name.startswith("pooler."):
            continue
        shape = tuple(weights[name].shape) if name in weights else None
        if shape != tuple(tensor.shape):
            raise CheckpointError(
                f"checkpoint {owner!r}: tensor 'model.encoder.encoder.{name}' is "
                f"{f'of shape {shape}' if shape is not None else 'missing'}, "
                f"expected shape {tuple(tensor.shape)} by the configuration of encoder "
                f"{name_of_encoder!r}. Use the encoder that the checkpoint was saved with"
            )
    model.load_state_dict({k: v for k, v in weights.items() if k in expected}, strict=False)
