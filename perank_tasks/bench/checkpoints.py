"""Full-size checkpoints to measure with: in, a prompt's name; out, a folder in our own format.

SmolLM2-135M-Instruct with all its layers, and an untrained near-orthogonal projector from
all-MiniLM-L6-v2. Their cost is that of a trained checkpoint; their rankings mean nothing.
Where the prompt has a place for it, a query token and a residual are used, too.
"""

from pathlib import Path

import torch

from perank_tasks.models.find import EMBEDDER, LLM, resolve_model
from perank_tasks.perank.checkpoint import save_checkpoint
from perank_tasks.perank.checkpoint_config import PerankConfig
from perank_tasks.perank.checkpoint_files import TensorFiles, read_json
from perank_tasks.perank.projector import orthonormal_columns
from perank_tasks.perank.prompt import TEMPLATES

SEED = 20240613
EMBEDDING_SIZE = 384

MODEL_CARD = """\
# {name}

**For benchmarks only**: {llm} with an untrained projector. Its rankings mean nothing.
"""


def benchmark_checkpoint(prompt: str, *, cache: Path) -> Path:
    """Make the checkpoint for the prompt called `prompt` below `cache`; one there is replaced.

    Raises:
        ConfigError: the LLM's or the embedder's package is not installed.
        StorageError: the cache cannot be written.
    """
    base = resolve_model(LLM, cache=cache)
    embedder = resolve_model(EMBEDDER, cache=cache)
    has_query = TEMPLATES[prompt].has_query_slot
    tokens = TensorFiles(base.folder).get("model.embed_tokens.weight").float()
    # Passages enter the LLM as loud as words do.
    norm = float(tokens.norm(dim=1).mean())
    tensors = {
        "projector.weight": norm * orthonormal_columns(tokens.shape[1], EMBEDDING_SIZE, SEED),
        "projector.bias": torch.zeros(tokens.shape[1]),
    }
    if has_query:
        tensors |= {"residual.t": torch.tensor(1.0), "residual.b": torch.tensor(1.0)}
    config = PerankConfig(
        base_model=LLM,
        base_revision=base.revision,
        num_layers=read_json(base.folder / "config.json")["num_hidden_layers"],
        encoder=EMBEDDER,
        encoder_pooling="mean",
        encoder_revision=embedder.revision,
        embedding_size=EMBEDDING_SIZE,
        projector_type="linear",
        prompt=prompt,
        query_token=has_query,
        residual=has_query,
        description="untrained, for benchmarks only",
        training={"seed": SEED},
    )
    folder = cache / "bench" / f"smollm2-minilm-{prompt}"
    save_checkpoint(folder, config, tensors, readme=MODEL_CARD.format(name=folder.name, llm=LLM))
    return folder
