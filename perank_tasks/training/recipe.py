"""Recipes: every hyper-parameter of a stage, frozen, validated and hashed.

A recipe says how to train, and nothing about where data lies or results go. Presets: `paper`
(arXiv 2406.14848 and its released scripts, for 7B models on GPUs), `tiny` (the same method with
SmolLM2-135M on two cores) and `feedback` (what the checkpoint that ships was trained by). What a
preset says is changed by name, from a TOML file or from NAME=VALUE words.
"""

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from perank_tasks.config import Options, choices, split_words, stable_hash
from perank_tasks.errors import ConfigError
from perank_tasks.models.find import EMBEDDER, LLM
from perank_tasks.perank.checkpoint_config import POOLINGS, PromptOrder
from perank_tasks.perank.prompt import COMPACT_V1, COMPACT_V2, RELEASED_V1, TEMPLATES

Preset = Literal["paper", "tiny", "feedback"]
ProjectorStart = Literal["random", "orthonormal", "ridge", "procrustes"]
AttentionStart = Literal["pretrained", "copying"]
StepWeights = Literal["uniform", "discount", "exponential"]
KlScaling = Literal["reference", "mean"]
TrainedLlm = Literal["full", "lora", "frozen"]
Storage = Literal["float32", "float16", "bfloat16"]
Layout = Literal["perank", "published"]

PROJECTOR_START_HELP = {
    "random": "as torch draws it (the paper's)",
    "orthonormal": "orthonormal columns, as long as the LLM's token embeddings; linear only",
    "ridge": "ridge regression from embeddings to the mean token embedding of their passages, "
    "in closed form; linear only",
    "procrustes": "the orthonormal columns that come closest to that regression: dot products of "
    "projected embeddings stay cosines, which a residual starts from; linear only",
}
ATTENTION_START_HELP = {
    "pretrained": "the base model's (the paper's)",
    "copying": "its values and outputs copy projected embeddings from where it looks, in the "
    "components in which passages of one list differ most; where it looks is pretrained. With "
    "projector_start orthonormal or procrustes, and a loud projector",
}
TRAINED_LLM_HELP = {
    "full": "all of its layers",
    "lora": "low-rank additions to them",
    "frozen": "nothing: the projector and the residual's factors only",
}
STEP_WEIGHTS_HELP = {
    "uniform": "ListMLE, every step alike (the paper's)",
    "discount": "position-aware ListMLE by nDCG's discount, 1 / log2(step + 1)",
    "exponential": "position-aware ListMLE by 2^(steps left) - 1, nearly all weight on the first",
}
KL_SCALING_HELP = {
    "reference": "as the reference code: summed over steps, averaged over lists, so n times the "
    "ranking losses' scale; its gradient also moves the teacher",
    "mean": "averaged over steps as the ranking losses are; the teacher is fixed",
}

JINA = "jinaai/jina-embeddings-v2-base-en"
MISTRAL = "mistralai/Mistral-7B-Instruct-v0.2"


class StageRecipe(Options):
    """What both stages have in common: the model to begin with, the optimiser, the clock."""

    base_model: str = Field(
        LLM, description="The LLM, where no checkpoint is started from: name, folder or hub id."
    )
    encoder: str = Field(EMBEDDER, description="What made the embeddings; likewise.")
    encoder_pooling: Literal["mean", "cls", "last_token"] = Field(
        "mean", description=f"How it pools: {', '.join(POOLINGS)}; likewise."
    )
    projector_type: str = Field(
        "linear", description="linear, mlpNx_gelu with N from 1 to 9, or identity; likewise."
    )
    projector_start: ProjectorStart = Field(
        "ridge", description="Where the projector begins: " + choices(PROJECTOR_START_HELP)
    )
    projector_scale: float = Field(
        1.0,
        gt=0,
        description="Length of projected embeddings to begin with, in lengths of the LLM's token "
        "embeddings; not for random. What the layers read is normed and hears no difference; but "
        "of a loud embedding more is left in the hidden state at its own place, and so the LLM "
        "begins by asking for passages like the query or the last one put out.",
    )
    ridge_penalty: float = Field(
        0.003, gt=0, description="Of the ridge regression, as a share of the mean variance."
    )
    ridge_passages: int = Field(20_000, ge=2, description="Passages that it is fitted to, at most.")
    num_layers: int | None = Field(
        None, ge=1, description="The LLM's first layers that are kept. Empty: all there are."
    )
    learning_rate: float = Field(1e-4, gt=0, description="The highest, after the warm-up.")
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = Field(
        "cosine", description="How the learning rate goes on after the warm-up, by steps."
    )
    warmup: float = Field(0.03, ge=0, lt=1, description="Share of all steps to warm up over.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's, of matrices only.")
    max_grad_norm: float = Field(1.0, gt=0, description="Longer gradients are cut to this norm.")
    batch_size: int = Field(8, ge=1, description="Examples a step, over all devices.")
    device_batch_size: int | None = Field(
        None,
        ge=1,
        description="Examples at once on one device; the others follow, and gradients are summed. "
        "Empty: all of a device's share.",
    )
    epochs: float = Field(1.0, gt=0, description="Times over the data, where max_steps is empty.")
    max_steps: int | None = Field(None, ge=1, description="Steps. Empty: by epochs.")
    max_minutes: float | None = Field(
        None,
        gt=0,
        description="Stop after so many minutes of training, though the schedule has not ended; "
        "the report says so. Time before a kill counts. Empty: no limit.",
    )
    eval_steps: int = Field(
        100, ge=1, description="Steps between evaluations; each is also a point to resume from."
    )
    eval_examples: int = Field(200, ge=1, description="Development examples measured, at most.")
    patience: int | None = Field(
        None,
        ge=1,
        description="Stop after so many evaluations in a row without a new best. Empty: never.",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="Of activations; weights and optimiser stay float32."
    )
    gradient_checkpointing: bool = Field(
        False, description="Compute activations again rather than keep them."
    )
    seed: int = Field(1, ge=0, description="Of the order of examples and of all that is drawn.")

    @property
    def hash(self) -> str:
        """Sixteen hex digits that name this recipe."""
        return stable_hash(self.model_dump(mode="json"))

    @classmethod
    def preset(cls, name: Preset) -> Self:
        """The recipe of a preset."""
        return cls.parse(_PRESETS[name][cls.__name__])

    @classmethod
    def load(cls, preset: Preset, changes: Iterable[str] = (), file: Path | None = None) -> Self:
        """A preset, changed by a TOML file and then by NAME=VALUE words; NAME= empties it.

        Raises:
            ConfigError: no such file, key or preset, or a value out of range.
        """
        if preset not in _PRESETS:
            raise ConfigError(f"preset is {preset!r}, expected one of {', '.join(_PRESETS)}")
        values = dict(_PRESETS[preset][cls.__name__])
        if file is not None:
            try:
                values |= tomllib.loads(file.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise ConfigError(
                    f"the recipe {file} cannot be read: {error}. It is TOML: one key = value a line"
                ) from error
        values |= {key: value or None for key, value in split_words(changes)}
        return cls.parse(values)

    @model_validator(mode="after")
    def _start_fits_projector(self) -> Self:
        if self.projector_start != "random" and self.projector_type != "linear":
            raise ValueError(
                f"projector_start {self.projector_start!r} makes a linear projector, not "
                f"{self.projector_type!r}: choose projector_start random, or projector_type linear"
            )
        return self


class AlignRecipe(StageRecipe):
    """Stage 1: the LLM says a passage's text from its one embedding token; only the projector
    learns."""

    max_tokens: int = Field(
        512, ge=16, description="Tokens a passage's text and the prompt before it are cut at."
    )


class RankRecipe(StageRecipe):
    """Stage 2: ListMLE by teacher forcing, with embeddings only and with embeddings and texts."""

    prompt: Literal["compact-v1", "compact-v2", "released-v1"] = Field(
        "compact-v1", description=f"The prompt's texts: {', '.join(TEMPLATES)}."
    )
    query_token: bool = Field(True, description="Whether the prompt holds the query's embedding.")
    residual: bool = Field(
        True, description="Whether logits are t·(h·p_i) + b·(p_q·p_i) rather than h·p_i."
    )
    score_residual: bool = Field(
        False, description="Whether s times the first stage's score is added; needs the residual."
    )
    attention_start: AttentionStart = Field(
        "pretrained",
        description="Where the last layer's attention begins, where no checkpoint is started "
        "from: " + choices(ATTENTION_START_HELP),
    )
    copying_scale: float = Field(
        16.0, gt=0, description="How loud it copies: times the projected embedding's length."
    )
    prompt_order: PromptOrder = Field(
        "given",
        description="How passages stand in a prompt without texts: given, in their list's order; "
        "residual, best first by the residual, so that places tell the LLM what the first opinion "
        "is.",
    )
    llm_scale: float = Field(
        0.03, description="t to begin with, where no checkpoint with a residual is started from."
    )
    cosine_scale: float = Field(
        50.0,
        ge=0,
        description="b to begin with, in logits per unit of cosine; likewise. 0: the residual adds "
        "nothing at first.",
    )
    score_weight: float = Field(
        0.03, ge=0, description="s to begin with, as a share of cosine_scale; likewise."
    )
    train_residual: bool = Field(True, description="Whether b and s learn. t always does.")
    residual_learning_rate: float | None = Field(
        None, gt=0, description="Of t, b and s. Empty: learning_rate."
    )
    trained_llm: TrainedLlm = Field(
        "full", description="What of the LLM learns: " + choices(TRAINED_LLM_HELP)
    )
    train_tokens: bool = Field(
        False, description="Whether the token embeddings learn, too; with trained_llm full."
    )
    train_projector: bool = Field(True, description="Whether the projector learns.")
    projector_learning_rate: float | None = Field(
        None, gt=0, description="Of the projector. Empty: learning_rate."
    )
    lora_rank: int = Field(16, ge=1, description="Rank of the additions.")
    lora_alpha: int = Field(32, ge=1, description="They are scaled by alpha / rank.")
    lora_targets: str = Field(
        "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj",
        description="Matrices they are added to, separated by commas.",
    )
    step_weights: StepWeights = Field(
        "uniform", description="Weights of ListMLE's steps: " + choices(STEP_WEIGHTS_HELP)
    )
    embeddings_weight: float = Field(
        1.0, ge=0, description="Of the ranking loss with embeddings only."
    )
    text_weight: float = Field(
        0.0, ge=0, description="Of the ranking loss with embeddings and texts. 0: no such branch."
    )
    kl_weight: float = Field(
        0.0, ge=0, description="Of KL(with texts ‖ embeddings only); needs the branch with texts."
    )
    kl_scaling: KlScaling = Field(
        "reference", description="What the KL is averaged over: " + choices(KL_SCALING_HELP)
    )
    max_tokens: int = Field(4096, ge=32, description="Longest prompt; longer lists are refused.")
    select_by: Literal["loss", "top1", "ndcg", "given"] = Field(
        "ndcg",
        description="The development measure that says which step was best: loss; top1, agreement "
        "on the best passage; ndcg, nDCG@10 of the engine's ranking, where the golden ranking's "
        "first of n passages is worth n and its last 1; given, the first measure of a judge that "
        "the caller gives.",
    )
    layout: Layout = Field(
        "perank", description="How it is saved: perank, our format; published, the paper's."
    )
    storage: Storage = Field(
        "float32",
        description="What the LLM's trained matrices, or all in layout published, are stored in.",
    )

    @property
    def has_text_branch(self) -> bool:
        """Whether the prompt with texts is run, too."""
        return self.text_weight > 0 or self.kl_weight > 0

    @model_validator(mode="after")
    def _options_fit_together(self) -> Self:
        if self.query_token and not TEMPLATES[self.prompt].has_query_slot:
            raise ValueError(
                f"prompt {self.prompt!r} has no place for a query token: set query_token=false, "
                f"or prompt={COMPACT_V1.name}"
            )
        if self.score_residual and not self.residual:
            raise ValueError("score_residual adds to the residual: set residual=true")
        if self.prompt_order == "residual" and not self.residual:
            raise ValueError("prompt_order=residual sorts by the residual: set residual=true")
        if self.attention_start == "copying" and self.projector_start in ("random", "ridge"):
            raise ValueError(
                f"attention_start=copying undoes the projector, and projector_start "
                f"{self.projector_start!r} cannot be undone: set projector_start=procrustes or "
                f"orthonormal"
            )
        if self.embeddings_weight == 0 and self.text_weight == 0:
            raise ValueError(
                "embeddings_weight and text_weight are both 0: nothing would be learnt"
            )
        if self.train_tokens and self.trained_llm != "full":
            raise ValueError("train_tokens goes with trained_llm=full")
        if self.trained_llm == "frozen" and not self.train_projector and not self.residual:
            raise ValueError(
                "nothing would learn: train_projector=true, or trained_llm=full or lora"
            )
        if self.layout == "published" and (
            self.prompt != RELEASED_V1.name or self.query_token or self.residual
        ):
            raise ValueError(
                "layout published has room for neither query token nor residual, and its prompt is "
                f"{RELEASED_V1.name}: set prompt={RELEASED_V1.name}, query_token=false and "
                f"residual=false, or layout=perank"
            )
        return self


_PAPER: dict[str, Any] = {
    "base_model": MISTRAL,
    "encoder": JINA,
    "projector_type": "mlp2x_gelu",
    "projector_start": "random",
    "schedule": "cosine",
    "warmup": 0.03,
    "epochs": 1,
    "precision": "bfloat16",
    "gradient_checkpointing": True,
    "eval_steps": 1000,
}
_TINY: dict[str, Any] = {"base_model": LLM, "encoder": EMBEDDER}

_PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {
        "AlignRecipe": _PAPER | {"learning_rate": 1e-3, "batch_size": 4, "max_tokens": 512},
        "RankRecipe": _PAPER
        | {
            "learning_rate": 2e-5,
            "batch_size": 32,
            "device_batch_size": 4,
            "max_tokens": 4096,
            "prompt": RELEASED_V1.name,
            "query_token": False,
            "residual": False,
            "trained_llm": "full",
            "train_tokens": True,
            "text_weight": 1.0,
            "kl_weight": 0.2,
            "kl_scaling": "reference",
            "layout": "published",
            "storage": "bfloat16",
        },
    },
    "tiny": {
        "AlignRecipe": _TINY
        | {
            "learning_rate": 1e-3,
            "max_tokens": 128,
            "max_steps": 200,
            "eval_steps": 50,
            "eval_examples": 64,
        },
        "RankRecipe": _TINY
        | {
            "projector_start": "procrustes",
            "num_layers": 4,
            "learning_rate": 1e-4,
            "max_steps": 2000,
            "eval_steps": 200,
            "eval_examples": 100,
            "storage": "float16",
        },
    },
}
# The recipe of the checkpoint that ships, for lists with a feedback teacher (`data_feedback`).
_PRESETS["feedback"] = {
    "AlignRecipe": _PRESETS["tiny"]["AlignRecipe"]
    | {"projector_start": "procrustes", "projector_scale": 20.0},
    "RankRecipe": _PRESETS["tiny"]["RankRecipe"]
    | {
        "prompt": COMPACT_V2.name,
        "prompt_order": "residual",
        "attention_start": "copying",
        "projector_scale": 20.0,
        "llm_scale": 0.2,
        "cosine_scale": 25.0,
        "score_residual": True,
        "train_residual": False,
        "learning_rate": 3e-4,
        "projector_learning_rate": 3e-5,
        "residual_learning_rate": 1e-4,
        "max_steps": 7000,
        "eval_examples": 80,
        "select_by": "loss",
    },
}
PRESETS = tuple(_PRESETS)
