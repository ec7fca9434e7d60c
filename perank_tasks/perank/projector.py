"""The projector: in, its type and two widths; out, the map from embeddings to the LLM's inputs."""

import re

import torch
from torch import Tensor, nn

from perank_tasks.models.products import Linear


def build_projector(projector_type: str, embedding_size: int, hidden_size: int) -> nn.Module:
    """The map from embeddings to the LLM's input space.

    `linear`; `mlpNx_gelu`: Linear(d, H), then N - 1 times GELU, Linear(H, H); `identity`.

    Raises:
        ValueError: another type, or `identity` between unequal sizes.
    """
    if projector_type == "linear":
        return Linear(embedding_size, hidden_size)
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
    layers: list[nn.Module] = [Linear(embedding_size, hidden_size)]
    for _ in range(int(match[1]) - 1):
        layers += [nn.GELU(), Linear(hidden_size, hidden_size)]
    return nn.Sequential(*layers)


def orthonormal_columns(rows: int, columns: int, seed: int) -> Tensor:
    """A random (rows, columns) matrix with orthonormal columns, float32, by the seed alone: a
    projector that keeps angles."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(draw)
    # QR is unique only up to signs; these make the draw uniform, and the same everywhere.
    return (q * torch.sign(torch.diagonal(r))).float()


def projector_shapes(
    projector_type: str, embedding_size: int, hidden_size: int
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the projector's tensors; raises as `build_projector` does."""
    with torch.device("meta"):
        projector = build_projector(projector_type, embedding_size, hidden_size)
    return {name: tuple(tensor.shape) for name, tensor in projector.state_dict().items()}
