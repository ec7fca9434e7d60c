"""The plain way to run PE-Rank, as its reference does: in, a list with texts; out, its order.

What the engine is measured against, and no slower than it must be: stock transformers and all
threads. The reference's way is

    windows     one at a time, batch 1
    passages    embedded again in every window, cut at 512 tokens
    vocabulary  the embedding and output matrices have rows for the window's passages, which
                are overwritten for each call
    decoding    `generate`, greedy, with a key/value cache and a function that allows the
                passages not yet put out; every step scores the whole vocabulary

Three things differ from it, and none costs time: the matrices keep their size from call to call,
windows are the engine's (`perank/windows.py` says of which list they differ), and passages are
embedded by the engine's encoder, whose products are faster on some CPUs.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig

from perank_tasks.errors import CheckpointError
from perank_tasks.models.encoder import REFERENCE_MAX_LENGTH
from perank_tasks.perank import PERank, RankingOptions
from perank_tasks.perank.checkpoint import Checkpoint, load_checkpoint, load_head
from perank_tasks.perank.prompt import Prompt
from perank_tasks.perank.windows import schedule
from perank_tasks.support.lists import CandidateList, RankedList


class PlainRanker:
    """A checkpoint run in the reference's way.

    Args:
        path_or_name: as for `PERank.from_pretrained`.
        engine: of the same checkpoint: its prompt, encoder, projector, device and dtype are used.
        options: window and step; None: the paper's.
        cache: where base models are unpacked.

    Attributes:
        model: the stock causal LLM, with `window` rows more than its vocabulary.

    Raises:
        CheckpointError: it has a residual or a query token, of which the reference knows nothing.
        ConfigError: nothing of that name.
    """

    def __init__(
        self,
        path_or_name: str | Path,
        engine: PERank,
        options: RankingOptions | None = None,
        *,
        cache: Path,
    ) -> None:
        checkpoint = load_checkpoint(path_or_name, cache=cache)
        if checkpoint.residual is not None or checkpoint.query_token:
            raise CheckpointError(
                f"checkpoint {checkpoint.name!r} has a residual or a query token, and the plain "
                f"way runs checkpoints of the reference only. Give one with the prompt released-v1 "
                f"and without these two"
            )
        self.engine, self.options = engine, options or RankingOptions()
        self.prompts = engine.prompts(self.options)
        self.model: Any = _causal_llm(
            checkpoint, self.options.window, engine.device, engine.model.dtype
        )
        self._vocabulary = checkpoint.llm.vocab_size

    def rerank(self, candidates: CandidateList) -> RankedList:
        """Rank a list by its texts, window by window from its back."""
        passages = candidates.texts or ()
        order = list(range(len(passages)))
        prepared = self.prompts.prepare(candidates.query)
        tokens_in = 0
        windows = schedule(len(order), self.options)
        for start, end, _ in windows:
            members = order[start:end]
            prompt = self.prompts.build(prepared, len(members))
            ranked = self._rank(prompt, [passages[position] for position in members])
            order[start:end] = [members[place] for place in ranked]
            tokens_in += len(prompt.input_ids)
        return RankedList(
            candidates.query_id,
            candidates.passage_ids,
            order,
            windows=len(windows),
            tokens_in=tokens_in,
            decode_steps=sum(end - start for start, end, _ in windows),
        )

    @torch.no_grad()
    def _rank(self, prompt: Prompt, texts: list[str]) -> list[int]:
        """The order of one window's passages: one call of `generate`, which reads the tokens that
        follow the vocabulary in the passages' slots."""
        embeddings = self.engine.encode(texts, max_length=REFERENCE_MAX_LENGTH)
        projected = self.engine.model.project(torch.from_numpy(embeddings))
        first, count = self._vocabulary, len(texts)
        for matrix in (self.model.get_input_embeddings(), self.model.get_output_embeddings()):
            matrix.weight[first : first + count] = projected
        ids = torch.tensor([prompt.input_ids], device=self.model.device)
        ids[0, prompt.passage_slots] = first + torch.arange(count, device=ids.device)
        prompt_length = len(prompt.input_ids)

        def allowed(_: int, sequence: Tensor) -> list[int]:
            given = set(sequence[prompt_length:].tolist())
            return [token for token in range(first, first + count) if token not in given]

        output = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=GenerationConfig(
                do_sample=False, use_cache=True, max_new_tokens=count, pad_token_id=0
            ),
            prefix_allowed_tokens_fn=allowed,
        )
        return [token - first for token in output[0, prompt_length:].tolist()]


def _causal_llm(
    checkpoint: Checkpoint, extra_rows: int, device: torch.device, dtype: torch.dtype
) -> Any:
    """The stock LLM with its own head, and `extra_rows` zero rows after its vocabulary."""
    config = copy.deepcopy(checkpoint.llm)
    config.vocab_size += extra_rows
    config.tie_word_embeddings = False
    embedding, head = checkpoint.body["embed_tokens.weight"], load_head(checkpoint)
    weights = {f"model.{name}": tensor for name, tensor in checkpoint.body.items()}
    for name, matrix in (("model.embed_tokens.weight", embedding), ("lm_head.weight", head)):
        weights[name] = torch.cat([matrix, matrix.new_zeros(extra_rows, matrix.shape[1])])
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    placed = {name: tensor.to(device, dtype) for name, tensor in weights.items()}
    model.load_state_dict(placed, strict=True, assign=True)
    # Rotary frequencies are no weights: they are computed, and were computed on "meta".
    rotary = model.model.rotary_emb
    model.model.rotary_emb = type(rotary)(config=config).to(device)
    return model.eval()
