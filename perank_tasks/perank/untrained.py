"""The shipped untrained checkpoint: in, a seed; out, a checkpoint in our own format.

    python -m perank_tasks.perank.untrained FOLDER [--cache DIR] [--num-layers K] [--seed S] …

Its projector keeps angles: orthonormal columns, times the mean norm of the LLM's token
embeddings, so that passages enter the LLM as loud as words do. Its logit is mostly the cosine
of query and passage, by the residual; the LLM's own share is small, since it was never
trained to rank.
"""

import argparse
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from perank_tasks.models import EMBEDDER, LLM, resolve_model
from perank_tasks.perank.checkpoint import save_checkpoint
from perank_tasks.perank.checkpoint_config import PerankConfig
from perank_tasks.perank.prompt import COMPACT_V1

NAME = "smollm2-minilm-untrained"
SEED = 20240613
NUM_LAYERS = 4
EMBEDDING_SIZE = 384

# Passages whose cosines with the query differ by 0.01 differ by 0.5 in the logit.
COSINE_SCALE = 50.0
# On TREC DL 2021 with 4 layers, this reorders the top ten of half of the queries and leaves
# nDCG@10 as it is (.5773; .5775 by the cosine alone); 0.1 loses .003.
LLM_SCALE = 0.03

MODEL_CARD = """\
# {name}

**Untrained**: a near-orthogonal projector and a cosine residual. It is here so that the package
ranks out of the box, on any machine, without a hub; no claim is made for its quality beyond that
of its embedder.

| | |
|---|---|
| LLM | {llm}, first {num_layers} of its layers and the final norm, weights unchanged (Apache-2.0) |
| embedder | {embedder}, mean pooling, {embedding_size} dimensions (Apache-2.0) |
| projector | linear, orthonormal columns times {norm:.4f}, the mean norm of the LLM's token \
embeddings; drawn with seed {seed}; bias 0 |
| logit | `t·(h·p_i) + b·(p_q·p_i)`, t = {t:g}, b = {b:.6g}: {cosine_scale:g} times the cosine of \
query and passage, and a little of the LLM |
| prompt | {prompt}, with a query-embedding token |

Reranking TREC DL 2021's BM25 top 100 (53 queries, window 20, step 10) gives nDCG@10 .5773 with the
settings of the package, where BM25 alone has .4458 and the embedder's cosine .5775
(passages embedded at 256 tokens): the LLM reorders the top ten of half of the queries, and the
measure stays as it is.

Made by

    python -m perank_tasks.perank.untrained FOLDER --num-layers {num_layers} --seed {seed} \
--cosine-scale {cosine_scale:g} --llm-scale {t:g}

The same arguments give the same numbers.
"""


def make_untrained(
    folder: Path,
    *,
    cache: Path,
    num_layers: int = NUM_LAYERS,
    seed: int = SEED,
    cosine_scale: float = COSINE_SCALE,
    llm_scale: float = LLM_SCALE,
) -> None:
    """Write the untrained checkpoint to `folder`; one that is there is replaced.

    Args:
        folder: its last part names the checkpoint.
        cache: where the LLM is unpacked, see `resolve_model`.
        num_layers: the LLM's first layers that are kept.
        seed: draws the projector.
        cosine_scale: logit per unit of cosine between query and passage.
        llm_scale: t, the factor of the LLM's own logit.

    Raises:
        ConfigError: the LLM's or the embedder's package is not installed.
        StorageError: a folder cannot be written.
    """
    base = resolve_model(LLM, cache=cache)
    embedder = resolve_model(EMBEDDER, cache=cache)
    with safe_open(base.folder / "model.safetensors", framework="pt") as file:
        tokens = file.get_tensor("model.embed_tokens.weight")
    norm = float(tokens.float().norm(dim=1).mean())
    hidden_size = tokens.shape[1]
    b = cosine_scale / norm**2
    tensors = {
        "projector.weight": norm * orthonormal_columns(hidden_size, EMBEDDING_SIZE, seed),
        "projector.bias": torch.zeros(hidden_size),
        "residual.t": torch.tensor(llm_scale),
        "residual.b": torch.tensor(b),
    }
    config = PerankConfig(
        base_model=LLM,
        base_revision=base.revision,
        num_layers=num_layers,
        encoder=EMBEDDER,
        encoder_pooling="mean",
        encoder_revision=embedder.revision,
        embedding_size=EMBEDDING_SIZE,
        projector_type="linear",
        prompt=COMPACT_V1.name,
        description="untrained: near-orthogonal projector + cosine residual",
        training={"seed": seed, "cosine_scale": cosine_scale},
    )
    card = MODEL_CARD.format(
        name=folder.name,
        llm=LLM,
        embedder=EMBEDDER,
        num_layers=num_layers,
        embedding_size=EMBEDDING_SIZE,
        norm=norm,
        seed=seed,
        t=llm_scale,
        b=b,
        cosine_scale=cosine_scale,
        prompt=COMPACT_V1.name,
    )
    save_checkpoint(folder, config, tensors, readme=card)


def orthonormal_columns(rows: int, columns: int, seed: int) -> Tensor:
    """A random (rows, columns) matrix with orthonormal columns, float32, by the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(draw)
    # QR is unique only up to signs; these make the draw uniform, and the same everywhere.
    return (q * torch.sign(torch.diagonal(r))).float()


def main() -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("var/cache"))
    parser.add_argument("--num-layers", type=int, default=NUM_LAYERS)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--cosine-scale", type=float, default=COSINE_SCALE)
    parser.add_argument("--llm-scale", type=float, default=LLM_SCALE)
    given = parser.parse_args()
    make_untrained(
        given.folder,
        cache=given.cache,
        num_layers=given.num_layers,
        seed=given.seed,
        cosine_scale=given.cosine_scale,
        llm_scale=given.llm_scale,
    )


if __name__ == "__main__":
    main()
