"""Stage 2, learning to rank: in, lists with golden rankings; out, a checkpoint that ranks.

Teacher forcing: at each step the LLM has put out the golden ranking so far, and the loss is the
cross-entropy of its next passage among those still to be put out. The same with texts in the
prompt is a branch of its own, whose distributions teach those of the embeddings alone.
"""

import logging
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from perank_tasks.errors import TrainingError
from perank_tasks.perank.checkpoint import Checkpoint, load_tokenizer
from perank_tasks.perank.prompt import TEMPLATES, PromptBuilder
from perank_tasks.training import losses
from perank_tasks.training.batches import RankingBatch, RankingCollator
from perank_tasks.training.examples import AlignmentExample, RankingExample, drawn
from perank_tasks.training.measuring import Judge, Measures
from perank_tasks.training.model import RankingTrainee, Weights
from perank_tasks.training.recipe import RankRecipe
from perank_tasks.training.saving import check_layout, save_trained
from perank_tasks.training.start import begin
from perank_tasks.training.trainer import Task, train
from perank_tasks.training.training_folder import Run, end_run, is_main_process

log = logging.getLogger(__name__)


def learn_to_rank(
    recipe: RankRecipe,
    lists: Sequence[RankingExample],
    development: Sequence[RankingExample],
    run: Run,
    judge: Judge | None = None,
) -> dict[str, Any]:
    """Train a checkpoint to rank; one that was killed is resumed.

    Args:
        recipe: how.
        lists: to train on.
        development: others, to measure on and to choose the best step by; none: the last step is
            kept, unless there is a judge.
        run: where, and from what.
        judge: measures a ranker at every evaluation, on a development collection, say.

    Returns:
        The report, which is also in the folder's `report.json`; `checkpoint` in it is the result.

    Raises:
        ConfigError: a start or base model that does not exist or does not fit the recipe.
        TrainingError: examples that do not fit, a loss that is not finite, or another training's
            folder.
        StorageError: the folder cannot be written.
    """
    _check(recipe, lists, run, judge)
    identity = run.identity(recipe, len(lists), len(development))
    passages = _Passages(lists, recipe) if run.start is None else []
    begun = begin(run, recipe, identity, passages, lists[0].embeddings.shape[1], lists)
    if not isinstance(begun, Checkpoint):
        return begun
    check_layout(begun, recipe.layout)
    model = RankingTrainee(begun, recipe)
    task = _task(recipe, lists, development, begun, run, judge)
    outcome = train(model, task, recipe, run.folder, threads=run.threads)
    weights = model.weights()
    report = {
        "stage": "rank",
        "checkpoint": str(run.checkpoint),
        "recipe_hash": recipe.hash,
        "residual": weights.residual,
        "score_residual": weights.score_residual,
        "measures": outcome.measures(),
        **outcome.report(),
    }
    if is_main_process():
        _save(recipe, begun, weights, run, identity, report)
        end_run(run, report)
    return report


def _check(
    recipe: RankRecipe, lists: Sequence[RankingExample], run: Run, judge: Judge | None
) -> None:
    if not len(lists):
        raise TrainingError("there are no lists to train on: make data with some")
    if recipe.select_by == "given" and judge is None:
        raise TrainingError("select_by is 'given', but the caller gave no judge: use ndcg")
    if run.start is not None and recipe.attention_start == "copying":
        log.warning(
            "attention_start=copying is for trainings without a start: %s keeps its attention",
            run.start,
        )


def _task(
    recipe: RankRecipe,
    lists: Sequence[RankingExample],
    development: Sequence[RankingExample],
    begun: Checkpoint,
    run: Run,
    judge: Judge | None,
) -> Task:
    collate = collator(begun, recipe)
    measured = drawn(development, recipe)
    can_measure = bool(measured) or judge is not None
    selects = bool(measured) or recipe.select_by == "given"
    rates = {"projector": recipe.projector_learning_rate}
    rates |= dict.fromkeys(("t", "b", "s"), recipe.residual_learning_rate)
    return Task(
        name="learning to rank",
        examples=lists,
        collate=collate,
        loss=lambda logits, batch: ranking_loss(logits, batch, recipe),
        measure=Measures(begun, measured, collate, recipe, run.cache, judge)
        if can_measure
        else None,
        select_by=recipe.select_by if selects else None,
        greater_is_better=recipe.select_by != "loss",
        length=None,
        learning_rates={name: rate for name, rate in rates.items() if rate is not None},
    )


def _save(
    recipe: RankRecipe,
    begun: Checkpoint,
    weights: Weights,
    run: Run,
    identity: dict[str, Any],
    report: dict[str, Any],
) -> None:
    save_trained(
        run.checkpoint,
        begun,
        weights,
        layout=recipe.layout,
        storage=recipe.storage,
        description=f"trained to rank for {report['kept_step']} steps",
        training=identity | {k: report[k] for k in ("measures", "steps", "kept_step", "stopped")},
        readme=_card(report),
    )


def ranking_loss(
    logits: dict[str, Tensor], batch: RankingBatch, recipe: RankRecipe
) -> tuple[Tensor, dict[str, Tensor]]:
    """Stage 2's loss, and the first step's agreement with the golden ranking as `top1`.

    Args:
        logits: of `RankingTrainee`.
        batch: what they are of.
        recipe: for weights and the KL's scaling.
    """
    ranking, sizes = batch["ranking"], batch["sizes"]
    available = losses.available(ranking, sizes)
    steps = {name: losses.step_log_probabilities(x, available) for name, x in logits.items()}
    plain = losses.listwise(steps["plain"], ranking, sizes, recipe.step_weights)
    shown = {"top1": losses.top_agreement(logits["plain"], ranking, sizes), "plain_loss": plain}
    total = recipe.embeddings_weight * plain
    if "with_texts" in steps:
        text = losses.listwise(steps["with_texts"], ranking, sizes, recipe.step_weights)
        kl = losses.divergence(
            steps["with_texts"], steps["plain"], available, sizes, recipe.kl_scaling
        )
        total = total + recipe.text_weight * text + recipe.kl_weight * kl
        shown |= {"text_loss": text, "kl": kl}
    return total, shown


def collator(begun: Checkpoint, recipe: RankRecipe) -> RankingCollator:
    """What makes batches for a model that began with `begun`."""

    def builder(form: Any) -> PromptBuilder:
        return PromptBuilder(
            TEMPLATES[begun.prompt],
            load_tokenizer(begun),
            query_token=begun.query_token,
            form=form,
        )

    return RankingCollator(
        builder("embeddings"),
        builder("both") if recipe.has_text_branch else None,
        needs_query=begun.query_token or begun.residual is not None,
        needs_scores=begun.score_residual is not None,
        embedding_size=begun.embedding_size,
        max_tokens=recipe.max_tokens,
    )


class _Passages(Sequence[AlignmentExample]):
    """The passages of the first lists, each once, for a start in closed form."""

    def __init__(self, lists: Sequence[RankingExample], recipe: RankRecipe) -> None:
        self._by_id: dict[str, AlignmentExample] = {}
        if recipe.projector_start not in ("ridge", "procrustes"):
            return
        for i in range(len(lists)):
            example = lists[i]
            for j, passage_id in enumerate(example.passage_ids if example.texts else []):
                assert example.texts is not None
                self._by_id[passage_id] = AlignmentExample(
                    passage_id, example.texts[j], example.embeddings[j]
                )
            if len(self._by_id) >= recipe.ridge_passages:
                break
        self._list = list(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def __getitem__(self, index: Any) -> Any:
        return self._list[index]


def _card(report: dict[str, Any]) -> str:
    measures = ", ".join(f"{k.removeprefix('dev_')} {v:.4f}" for k, v in report["measures"].items())
    return (
        f"# A PE-Rank checkpoint\n\n"
        f"Trained by `perank train rank`: {report['steps']} of {report['planned']} steps, step "
        f"{report['kept_step']} kept, recipe {report['recipe_hash']}; config.json has the recipe "
        f"and names the data.\n\nOn development lists: {measures or 'not measured'}.\n"
    )
