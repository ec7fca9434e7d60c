"""Recipes: every hyper-parameter of a stage, frozen, validated and hashed.

A recipe says how to train, and nothing about where data lies or results go. It begins with a
preset of presets.toml: `paper` (arXiv 2406.14848 and its released scripts, for 7B models on GPUs),
`tiny` (the same method with SmolLM2-135M on two cores) or `feedback` (the checkpoint that ships).
A preset is changed by NAME=VALUE words.

The docstring below a field is its description on the command line and in the Airflow form.
"""

import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from perank_tasks.config import DEFAULT_EMBEDDER, Options, stable_hash
from perank_tasks.models.find import LLM
from perank_tasks.perank.checkpoint_config import PromptOrder
from perank_tasks.perank.prompt import COMPACT_V1, RELEASED_V1, TEMPLATES
from perank_tasks.support.words import split_words

Preset = Literal["paper", "tiny", "feedback"]
StepWeights = Literal["uniform", "discount", "exponential"]
KlScaling = Literal["reference", "mean"]
Storage = Literal["float32", "float16", "bfloat16"]
Layout = Literal["perank", "published"]


class StageRecipe(Options):
    """What both stages have in common: the model to begin with, the optimiser, the clock."""

    stage: ClassVar[Literal["align", "rank"]]

    base_model: str = LLM
    """The LLM, where no checkpoint is started from: name, folder or hub id."""
    encoder: str = DEFAULT_EMBEDDER
    """What made the embeddings; likewise."""
    encoder_pooling: Literal["mean", "cls", "last_token"] = "cls"
    """How it pools: mean, cls or last_token; likewise."""
    projector_type: str = "linear"
    """linear, mlpNx_gelu with N from 1 to 9, or identity; likewise."""
    projector_start: Literal["random", "orthonormal", "ridge", "procrustes"] = "ridge"
    """Where the projector begins. All but random make a linear one. random: as torch draws it (the
    paper's); orthonormal: orthonormal columns, as long as the LLM's token embeddings; ridge: ridge
    regression from embeddings to the mean token embedding of their passages, in closed form;
    procrustes: the orthonormal columns that come closest to that regression, so that dot products
    of projected embeddings stay cosines, which a residual starts from."""
    projector_scale: float = Field(1.0, gt=0)
    """Initial length of projected embeddings, as a multiple of the mean length of the LLM's token
    embeddings; not for random. Layer norms cancel it inside a block, but a larger value leaves more
    of the embedding in the residual stream at its own place: the LLM then begins by asking for
    passages like the query or the last one put out."""
    ridge_penalty: float = Field(0.003, gt=0)
    """Of the ridge regression, as a share of the mean variance."""
    ridge_passages: int = Field(20_000, ge=2)
    """Passages that it is fitted to, at most."""
    num_layers: int | None = Field(None, ge=1)
    """The LLM's first layers that are kept. Empty: all there are."""
    learning_rate: float = Field(1e-4, gt=0)
    """The highest, after the warm-up."""
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    """The learning rate after the warm-up, by steps."""
    warmup: float = Field(0.03, ge=0, lt=1)
    """Share of all steps to warm up over."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's, of matrices only."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Longer gradients are cut to this norm."""
    batch_size: int = Field(8, ge=1)
    """Examples a step, over all devices."""
    device_batch_size: int | None = Field(None, ge=1)
    """Examples at once on one device; the others follow, and gradients are summed. Empty: all of a
    device's share."""
    epochs: float = Field(1.0, gt=0)
    """Times over the data, where max_steps is empty."""
    max_steps: int | None = Field(None, ge=1)
    """Steps. Empty: by epochs."""
    max_minutes: float | None = Field(None, gt=0)
    """Stop after so many minutes of training, though the schedule has not ended; the report says
    so. Time before a kill counts. Empty: no limit."""
    eval_steps: int = Field(100, ge=1)
    """Steps between evaluations; each is also a point to resume from."""
    eval_examples: int = Field(200, ge=1)
    """Development examples measured, at most."""
    patience: int | None = Field(None, ge=1)
    """Stop after so many evaluations in a row without a new best. Empty: never."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of activations; what is trained, and its optimiser, stay float32. A 7B needs bfloat16
    to fit; on an H100 a 135M trains 1.6 times as fast in float32, where nothing has to be cast."""
    gradient_checkpointing: bool = False
    """Compute activations again rather than keep them."""
    seed: int = Field(1, ge=0)
    """Of the order of examples and of all that is drawn."""

    @property
    def hash(self) -> str:
        """Sixteen hex digits that name this recipe."""
        return stable_hash(self.model_dump(mode="json"))

    @classmethod
    def preset(cls, name: Preset, changes: Iterable[str] = ()) -> Self:
        """The recipe of a preset, changed by NAME=VALUE words; NAME= empties it.

        Raises:
            ConfigError: no such option, or a value out of range.
        """
        presets = tomllib.loads(Path(__file__).with_name("presets.toml").read_text("utf-8"))
        words = {key: value or None for key, value in split_words(changes)}
        return cls.parse(presets[name][cls.stage] | words)

    def contradictions(self) -> Iterator[str]:
        """What does not fit together, and what to set instead."""
        if self.projector_start != "random" and self.projector_type != "linear":
            yield (
                f"projector_start {self.projector_start!r} makes a linear projector, not "
                f"{self.projector_type!r}: choose projector_start random, or projector_type linear"
            )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if wrong := list(self.contradictions()):
            raise ValueError("; ".join(wrong))
        return self


class AlignRecipe(StageRecipe):
    """Stage 1: the LLM says a passage's text from its one embedding token; only the projector
    learns."""

    stage = "align"
    # What the checkpoint that it makes is like; stage 2 chooses anew.
    prompt: ClassVar = COMPACT_V1.name
    prompt_order: ClassVar[PromptOrder] = "given"
    query_token: ClassVar = False
    residual: ClassVar = False
    score_residual: ClassVar = False
    layout: ClassVar[Layout] = "perank"
    storage: ClassVar[Storage] = "float32"

    max_tokens: int = Field(512, ge=16)
    """Tokens a passage's text and the prompt before it are cut at."""


class RankRecipe(StageRecipe):
    """Stage 2: ListMLE by teacher forcing, with embeddings only and with embeddings and texts."""

    stage = "rank"

    prompt: Literal["compact-v1", "compact-v2", "released-v1"] = "compact-v1"
    """The prompt's texts: compact-v1, compact-v2 or released-v1."""
    query_token: bool = True
    """Whether the prompt holds the query's embedding."""
    residual: bool = True
    """Whether logits are t·(h·p_i) + b·(p_q·p_i) rather than h·p_i."""
    score_residual: bool = False
    """Whether s times the first stage's score is added; needs the residual."""
    attention_start: Literal["pretrained", "copying"] = "pretrained"
    """Where the last layer's attention begins, where no checkpoint is started from. pretrained:
    the base model's (the paper's); copying: its values and outputs copy projected embeddings from
    where it looks, in the components in which passages of one list differ most, and where it looks
    is pretrained. With projector_start orthonormal or procrustes, and a large projector_scale."""
    copying_scale: float = Field(16.0, gt=0)
    """How loud it copies: times the projected embedding's length."""
    prompt_order: PromptOrder = "given"
    """How passages stand in a prompt without texts: given, in their list's order; residual, best
    first by the residual, so that places tell the LLM what the first opinion is."""
    llm_scale: float = 0.03
    """t to begin with, where no checkpoint with a residual is started from."""
    cosine_scale: float = Field(50.0, ge=0)
    """b to begin with, in logits per unit of cosine; likewise. 0: the residual adds nothing at
    first."""
    score_weight: float = Field(0.008, ge=0)
    """s to begin with, as a share of cosine_scale; likewise."""
    train_residual: bool = True
    """Whether b and s learn. t always does."""
    residual_learning_rate: float | None = Field(None, gt=0)
    """Of t, b and s. Empty: learning_rate."""
    trained_llm: Literal["full", "lora", "frozen"] = "full"
    """What of the LLM learns. full: all of its layers; lora: low-rank additions to them; frozen:
    nothing, the projector and the residual's factors only."""
    train_tokens: bool = False
    """Whether the token embeddings learn, too; with trained_llm full."""
    train_projector: bool = True
    """Whether the projector learns."""
    projector_learning_rate: float | None = Field(None, gt=0)
    """Of the projector. Empty: learning_rate."""
    lora_rank: int = Field(16, ge=1)
    """Rank of the additions."""
    lora_alpha: int = Field(32, ge=1)
    """They are scaled by alpha / rank."""
    lora_targets: str = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"
    """Matrices they are added to, separated by commas."""
    step_weights: StepWeights = "uniform"
    """Weights of ListMLE's steps. uniform: every step alike (the paper's); discount:
    position-aware ListMLE by nDCG's discount, 1 / log2(step + 1); exponential: position-aware
    ListMLE by 2^(steps left) - 1, nearly all weight on the first."""
    embeddings_weight: float = Field(1.0, ge=0)
    """Of the ranking loss with embeddings only."""
    text_weight: float = Field(0.0, ge=0)
    """Of the ranking loss with embeddings and texts. 0: no such branch."""
    kl_weight: float = Field(0.0, ge=0)
    """Of KL(with texts ‖ embeddings only); needs the branch with texts."""
    kl_scaling: KlScaling = "reference"
    """What the KL is averaged over. reference: as the reference code, summed over steps, averaged
    over lists, so n times the ranking losses' scale, and its gradient also moves the teacher;
    mean: averaged over steps as the ranking losses are, and the teacher is fixed."""
    max_tokens: int = Field(4096, ge=32)
    """Longest prompt; longer lists are refused."""
    select_by: Literal["loss", "top1", "ndcg"] = "ndcg"
    """The development measure that says which step was best. loss; top1: agreement on the best
    passage; ndcg: nDCG@10 of the engine's ranking, where the golden ranking's first of n passages
    is worth n and its last 1."""
    layout: Layout = "perank"
    """How it is saved: perank, our format; published, the paper's."""
    storage: Storage = "float32"
    """What the LLM's trained matrices, or all in layout published, are stored in."""

    @property
    def has_text_branch(self) -> bool:
        """Whether the prompt with texts is run, too."""
        return self.text_weight > 0 or self.kl_weight > 0

    def contradictions(self) -> Iterator[str]:
        yield from super().contradictions()
        if self.query_token and not TEMPLATES[self.prompt].has_query_slot:
            yield (
                f"prompt {self.prompt!r} has no place for a query token: set query_token=false, "
                f"or prompt={COMPACT_V1.name}"
            )
        if self.score_residual and not self.residual:
            yield "score_residual adds to the residual: set residual=true"
        if self.prompt_order == "residual" and not self.residual:
            yield "prompt_order=residual sorts by the residual: set residual=true"
        if self.attention_start == "copying" and self.projector_start in ("random", "ridge"):
            yield (
                f"attention_start=copying undoes the projector, and projector_start "
                f"{self.projector_start!r} cannot be undone: set projector_start=procrustes or "
                f"orthonormal"
            )
        if self.embeddings_weight == 0 and self.text_weight == 0:
            yield "embeddings_weight and text_weight are both 0: nothing would be learnt"
        if self.train_tokens and self.trained_llm != "full":
            yield "train_tokens goes with trained_llm=full"
        if self.trained_llm == "frozen" and not self.train_projector and not self.residual:
            yield "nothing would learn: train_projector=true, or trained_llm=full or lora"
        if self.layout == "published" and (
            self.prompt != RELEASED_V1.name or self.query_token or self.residual
        ):
            yield (
                f"layout published has room for neither query token nor residual, and its prompt "
                f"is {RELEASED_V1.name}: set prompt={RELEASED_V1.name}, query_token=false and "
                f"residual=false, or layout=perank"
            )
