"""Files of a checkpoint or model folder: in, a folder; out, JSON objects and tensors by name.

Weights are read from safetensors, sharded or not, or from a pickle with `weights_only=True`.
Layers of tensors from other files may lie over them.
torch is imported when a pickle is opened or a tensor is asked for, not to list the names in
safetensors.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from perank_tasks.errors import CheckpointError
from perank_tasks.support.files import what_lies_instead

if TYPE_CHECKING:
    from torch import Tensor


WEIGHTS = (
    "model.safetensors",
    "model-*-of-*.safetensors",
    "pytorch_model.bin",
    "pytorch_model-*-of-*.bin",
)
"""Where a model's tensors are: in one file or in shards, as safetensors or as pickles."""


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a checkpoint's file.

    Raises:
        CheckpointError: the file is missing or damaged, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} is missing: a checkpoint is a folder with config.json and weights"
        ) from error
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def setting(path: Path, config: dict[str, Any], key: str, kind: type) -> Any:
    """`config[key]`, read from `path`.

    Raises:
        CheckpointError: it is missing or no `kind`.
    """
    value = config.get(key)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise CheckpointError(f"{path}: {key} is {value!r}, expected {kind.__name__}")
    return value


class TensorFiles:
    """The tensors of a folder, by name, whichever files they lie in; read when asked for.

    Args:
        names: of the files; the first that is there counts.

    Raises:
        CheckpointError: no weights, or a file that cannot be read.
    """

    def __init__(self, folder: Path, names: Sequence[str] = WEIGHTS) -> None:
        self.folder = folder
        self.files: dict[str, Path] = {}
        self._loaded: dict[Path, dict[str, Tensor]] = {}
        self.paths = weight_files(folder, names)
        if not self.paths:
            raise CheckpointError(
                f"{folder} has no weights: expected {' or '.join(names)}. Fetch the checkpoint anew"
            )
        for path in self.paths:
            if path.suffix == ".bin":
                self.put(path, read_pickle(path))
                continue
            try:
                with safe_open(path, framework="numpy") as file:
                    self.files.update(dict.fromkeys(file.keys(), path))
            except (SafetensorError, OSError) as error:
                raise unreadable(path, error) from error

    def put(self, path: Path, tensors: "dict[str, Tensor]") -> None:
        """Let `tensors`, which were read from `path`, replace those of the same names."""
        self._loaded[path] = tensors
        self.files.update(dict.fromkeys(tensors, path))

    def get(self, name: str, shape: tuple[int, ...] | None = None) -> "Tensor":
        """The tensor `name`, of `shape` where one is given.

        Raises:
            CheckpointError: it is missing, of another shape, or its file is damaged.
        """
        path = self.files.get(name)
        if path is None:
            raise CheckpointError(
                f"{self.folder}: tensor {name!r} is missing from the weights"
                f"{f', expected shape {shape}' if shape else ''}. "
                f"The download may be incomplete, or config.json belongs to another model"
            )
        if path in self._loaded:
            tensor = self._loaded[path][name]
        else:
            try:
                with safe_open(path, framework="pt") as file:
                    tensor = file.get_tensor(name)
            except (SafetensorError, OSError) as error:
                raise unreadable(path, error) from error
        if shape is not None and tuple(tensor.shape) != shape:
            raise CheckpointError(
                f"{path}: tensor {name!r} has shape {tuple(tensor.shape)}, expected {shape} by "
                f"config.json. Use the config.json that was saved with these weights"
            )
        return tensor


def weight_files(folder: Path, names: Sequence[str] = WEIGHTS) -> list[Path]:
    """The files in a folder that have the first of these names that any has."""
    for name in names:
        if paths := sorted(folder.glob(name)):
            return paths
    return []


def read_pickle(path: Path) -> "dict[str, Tensor]":
    """The named tensors in a pickle, and nothing else that may be in one.

    Raises:
        CheckpointError: it cannot be read, holds something else, or would run code.
    """
    import torch

    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError) as error:
        raise unreadable(path, error) from error
    except Exception as error:  # a damaged pickle fails in whatever it happens to say
        # A name of a function or class in it that is none of a tensor's.
        if "GLOBAL" in str(error):
            raise CheckpointError(
                f"{path} is a pickle that holds more than tensors and would run code when read: "
                f"refused. Convert it to safetensors where you trust it"
            ) from error
        raise unreadable(path, ValueError("it is no whole pickle of tensors")) from error
    if not isinstance(tensors, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in tensors.items()
    ):
        raise CheckpointError(f"{path} is not a dictionary of named tensors, as expected")
    return tensors


def unreadable(path: Path, error: Exception) -> CheckpointError:
    """The error for a file that `error` kept from being read; says what lies in its place."""
    if placeholder := what_lies_instead(path):
        return CheckpointError(f"{path} {placeholder}")
    reason = re.sub(r"\s+", " ", str(error))[:200]
    return CheckpointError(f"{path} cannot be read: {reason}. Fetch or write the file anew")
