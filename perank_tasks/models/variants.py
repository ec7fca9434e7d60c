"""Variants of a model, as embedders: in, `NAME?layers=3&dimensions=128`; out, a folder.

    layers=N       the transformer's first N layers
    dimensions=N   the first N values of a pooled vector
    pooling=P      mean, cls or last_token: makes an embedder of any transformer, an LLM included
    tokens=N       where texts are cut; of a transformer that says nothing itself, 512
    prompts=own    what the model's authors put before queries and passages is put there

NAME is whatever `models.find_model` knows: an embedded name, a folder, a hub id. A variant is a
sentence-transformers folder in the cache, made once from the model's own weights, and is named by
the model's content and these words. Nothing is trained.
"""

import json
import logging
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from perank_tasks.errors import ConfigError
from perank_tasks.support.files import making_folder

log = logging.getLogger(__name__)

POOLINGS = {"mean": "mean", "cls": "cls", "last_token": "lasttoken"}
"""{our name: sentence-transformers' name}"""

DEFAULT_TOKENS = 512

_OPTION = re.compile(
    rf"(layers|dimensions|tokens)=0*[1-9]\d*|pooling=({'|'.join(POOLINGS)})|prompts=own"
)


@dataclass(frozen=True)
class ModelVariant:
    """A model, and what is made of it."""

    base: str
    layers: int | None = None
    dimensions: int | None = None
    pooling: str | None = None
    tokens: int | None = None
    prompts: str | None = None

    @classmethod
    def parse(cls, name: str) -> "ModelVariant | None":
        """Read a name; None where it has no `?`.

        Raises:
            ConfigError: an option is unknown, there twice, or no positive number.
        """
        base, mark, rest = name.partition("?")
        if not mark:
            return None
        options: dict[str, Any] = {}
        for word in rest.split("&"):
            option, _, value = word.partition("=")
            if option in options or not _OPTION.fullmatch(word):
                raise ConfigError(
                    f"the model {name!r} has {word!r} behind its question mark; expected layers, "
                    "dimensions, pooling, tokens, prompts, joined by &: numbers of 1 or more, for "
                    f"pooling {', '.join(POOLINGS)}, and prompts=own"
                )
            options[option] = value if option in ("pooling", "prompts") else int(value)
        return cls(base, **options)

    @property
    def words(self) -> str:
        """What is made of the model, always in the same order."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self)[1:])
        return "&".join(f"{name}={value}" for name, value in values if value is not None)


def make_variant(variant: ModelVariant, base: Path, target: Path) -> None:
    """Write a variant's folder, all or nothing.

    Args:
        base: the folder of the model.

    Raises:
        ConfigError: it cannot be cut so, or a plain transformer is to be an embedder without
            `pooling`.
        StorageError: the cache cannot be written.
    """
    if code := repository_code(base):
        raise ConfigError(
            f"the model {variant.base!r} is Python code of its own repository ({code}), which is "
            "not run to cut it: use it whole"
        )
    log.info("making %s of %s once", variant.words, variant.base)
    model = _build(variant, base)
    with making_folder(target, "Give another cache folder.") as scratch:
        model.save(str(scratch), create_model_card=False)


def repository_code(folder: Path) -> str | None:
    """What a model would run of its repository's Python code; None where it brings none."""
    modules = folder / "modules.json"
    if modules.is_file():
        for module in json.loads(modules.read_text(encoding="utf-8")):
            if not module["type"].startswith("sentence_transformers."):
                return str(module["type"])
    configs = sorted(folder.rglob("config.json"))
    return next((code for code in map(architecture_code, configs) if code), None)


def architecture_code(config: Path) -> str | None:
    """The repository's code that a config.json names as its model's; None where it names none.

    Its model_type may be one that transformers knows, too ("bert", for JinaBERT v2): without the
    code it would be built without a word, as another architecture.
    """
    auto_map = json.loads(config.read_text(encoding="utf-8")).get("auto_map") or {}
    code = auto_map.get("AutoModel") or auto_map.get("AutoConfig")
    return str(code) if code else None


def _build(variant: ModelVariant, base: Path) -> Any:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import (
        Dense,
        Normalize,
        Pooling,
        Transformer,
    )

    name = f"{variant.base}?{variant.words}"
    prompts: dict[str, str] = {}
    if (base / "modules.json").is_file() and variant.pooling is None:
        # Its own pooling, and whatever else it has but the last step.
        whole = SentenceTransformer(str(base), device="cpu")
        modules: list[Any] = [module for module in whole if not isinstance(module, Normalize)]
        transformer: Any = modules[0]
        prompts = {kind: text for kind, text in whole.prompts.items() if text}
    elif variant.pooling is None:
        raise ConfigError(
            f"the model {name!r} is a plain transformer: add pooling=mean, or another rule, to "
            "make an embedder of it"
        )
    else:
        # Texts as they are: of a chat model, sentence-transformers would make messages of them.
        forward = {"method": "forward", "method_output_name": "last_hidden_state"}
        transformer = Transformer(
            str(base),
            max_seq_length=DEFAULT_TOKENS,
            modality_config={"text": forward},
            module_output_name="token_embeddings",
        )
        tokenizer = transformer.tokenizer
        tokenizer.chat_template = None
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        # Right, or a decoder's last token would not be where pooling looks for it.
        tokenizer.padding_side = "right"
        hidden = int(transformer.auto_model.config.hidden_size)
        modules = [transformer, Pooling(hidden, POOLINGS[variant.pooling])]
    if variant.prompts and not prompts:
        raise ConfigError(f"the model {name!r} brings no prompts: leave prompts=own out")
    if variant.layers is not None:
        _cut(transformer.auto_model, variant.layers, name)
    if variant.tokens is not None:
        transformer.max_seq_length = variant.tokens
    built = SentenceTransformer(modules=[*modules], device="cpu")
    width = int(built.get_embedding_dimension() or 0)
    if variant.dimensions is not None:
        if variant.dimensions > width:
            raise ConfigError(f"the model {name!r}: it has {width} dimensions")
        first = Dense(
            width,
            variant.dimensions,
            bias=False,
            activation_function=torch.nn.Identity(),
            init_weight=torch.eye(variant.dimensions, width),
        )
        modules = [*modules, first]
    return SentenceTransformer(modules=[*modules, Normalize()], device="cpu", prompts=prompts)


def _cut(model: Any, layers: int, name: str) -> None:
    """Keep a transformer's first layers: BERT's are in its encoder, an LLM's are its own."""
    import torch

    for place, at in ((getattr(model, "encoder", None), "layer"), (model, "layers")):
        stack = getattr(place, at, None)
        if isinstance(stack, torch.nn.ModuleList):
            if layers > len(stack):
                raise ConfigError(f"the model {name!r}: it has {len(stack)} layers")
            setattr(place, at, stack[:layers])
            model.config.num_hidden_layers = layers
            if isinstance(getattr(model.config, "layer_types", None), list):
                model.config.layer_types = model.config.layer_types[:layers]
            return
    raise ConfigError(f"the model {name!r}: where {type(model).__name__} has its layers is unknown")
