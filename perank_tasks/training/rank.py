"""Stage 2, learning to rank: in, lists with golden rankings; out, a checkpoint that ranks.

Teacher forcing: at each step the LLM has put out the golden ranking so far, and the loss is the
cross-entropy of its next passage among those still to be put out. The same with texts in the
prompt is a branch of its own, whose distributions teach those of the embeddings alone.

Measures on development lists come from the engine itself, on the weights as they are.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from perank_tasks.errors import TrainingError
from perank_tasks.models.find import content_hash
from perank_tasks.perank import CandidateList, PERank, RankingOptions
from perank_tasks.perank.checkpoint import Checkpoint, load_tokenizer
from perank_tasks.perank.prompt import TEMPLATES, PromptBuilder
from perank_tasks.training import losses
from perank_tasks.training.batches import RankingBatch, RankingCollator
from perank_tasks.training.examples import AlignmentExample, RankingExample
from perank_tasks.training.model import RankingTrainee
from perank_tasks.training.recipe import RankRecipe
from perank_tasks.training.runs import (
    beginning,
    close_run,
    is_main_process,
    main_process_first,
    open_run,
)
from perank_tasks.training.saving import check_layout, save_trained
from perank_tasks.training.start import make_start, open_start
from perank_tasks.training.trainer import Task, train

Judge = Callable[[PERank], dict[str, float]]
"""Measures of a ranker, by names of the caller's; higher is better."""

log = logging.getLogger(__name__)


def learn_to_rank(
    recipe: RankRecipe,
    lists: Sequence[RankingExample],
    development: Sequence[RankingExample],
    out: Path,
    *,
    cache: Path,
    threads: int,
    start: str | Path | None = None,
    passages: Sequence[AlignmentExample] = (),
    data: dict[str, Any] | None = None,
    judge: Judge | None = None,
    readme: Callable[[dict[str, Any]], str] | None = None,
) -> dict[str, Any]:
    """Train a checkpoint to rank; what was killed is gone on with.

    Args:
        recipe: how.
        lists: to train on.
        development: others, to measure on and to choose the best step by; none: the last step is
            kept, unless there is a judge.
        out: folder of the training, see `runs`.
        cache: where base models are unpacked.
        threads: of this process on a CPU.
        start: a checkpoint to begin with, such as stage 1's; None: as the recipe says.
        passages: for a start in closed form; none: those of the lists, where they have texts.
        data: what the examples are, for the record: references, counts, terms.
        judge: measures a ranker at every evaluation, on a development collection, say.
        readme: the model card, from the report; None: a short one.

    Returns:
        The report, which is also in `out/report.json`; `checkpoint` in it is the result's folder.

    Raises:
        ConfigError: a start or base model that does not exist or does not fit the recipe.
        TrainingError: examples that do not fit, a loss that is not finite, or another training's
            folder.
        StorageError: the folder cannot be written.
    """
    if not len(lists):
        raise TrainingError("there are no lists to train on: make data with some")
    identity = {
        "stage": "rank",
        "recipe": recipe.model_dump(mode="json"),
        "start": str(start) if start else None,
        "start_hash": content_hash(Path(start)) if start and Path(start).is_dir() else None,
        "data": data or {},
        "examples": [len(lists), len(development)],
    }
    with main_process_first():
        done = open_run(out, identity)
        if done is not None:
            return done
        if start is None and not (out / "start" / "config.json").is_file():
            size = lists[0].embeddings.shape[1]
            known = passages if len(passages) else _Passages(lists, recipe)
            with beginning(out):
                make_start(out / "start", recipe, known, size, cache=cache, lists=lists)
    if start is not None and recipe.attention_start == "copying":
        log.warning(
            "attention_start=copying is for trainings without a start: %s keeps its attention",
            start,
        )
    begun = open_start(start or out / "start", recipe, cache=cache)
    check_layout(begun, recipe.layout)
    collate = collator(begun, recipe)
    measured = [
        development[int(i)]
        for i in np.random.default_rng(recipe.seed).permutation(len(development))
    ][: recipe.eval_examples]
    model = RankingTrainee(begun, recipe)
    tokenizer = load_tokenizer(begun)

    def measure(trained: RankingTrainee) -> dict[str, float]:
        engine = engine_of(begun, tokenizer, trained, cache=cache)
        found = {}
        if measured:
            found = teacher_forced(trained, measured, collate, recipe)
            found["ndcg"] = float(np.mean(agreement(engine, measured)))
        judged = judge(engine) if judge else {}
        if recipe.select_by == "given":
            found["given"] = next(iter(judged.values()), 0.0)
        return found | judged

    can_measure = bool(measured) or judge is not None
    if recipe.select_by == "given" and judge is None:
        raise TrainingError("select_by is 'given', but the caller gave no judge: use ndcg")
    selects = can_measure and (bool(measured) or recipe.select_by == "given")
    outcome = train(
        model,
        Task(
            name="learning to rank",
            examples=lists,
            collate=collate,
            loss=lambda logits, batch: ranking_loss(logits, batch, recipe),
            measure=measure if can_measure else None,
            select_by=recipe.select_by if selects else None,
            greater_is_better=recipe.select_by != "loss",
            length=None,
            learning_rates=_rates(recipe),
        ),
        recipe,
        out,
        threads=threads,
    )
    weights = model.weights()
    report = {
        "stage": "rank",
        "checkpoint": str(out / "checkpoint"),
        "recipe_hash": recipe.hash,
        "residual": weights.residual,
        "score_residual": weights.score_residual,
        "measures": next(
            (
                {name: value for name, value in row.items() if name.startswith("dev_")}
                for row in outcome.rows
                if row["step"] == outcome.kept_step
            ),
            {},
        ),
        **{name: value for name, value in asdict(outcome).items() if name != "rows"},
    }
    if not is_main_process():
        return report
    save_trained(
        out / "checkpoint",
        begun,
        weights,
        layout=recipe.layout,
        storage=recipe.storage,
        description=f"trained to rank for {outcome.kept_step} steps",
        training={
            **identity,
            **{k: report[k] for k in ("measures", "steps", "kept_step", "stopped")},
        },
        readme=(readme or _card)(report),
    )
    close_run(out, report)
    return report


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


def teacher_forced(
    model: RankingTrainee,
    lists: Sequence[RankingExample],
    collate: RankingCollator,
    recipe: RankRecipe,
) -> dict[str, float]:
    """The mean loss over lists with embeddings only, uniform weights, and the top-1 agreement."""
    device = next(model.parameters()).device
    total = {"loss": 0.0, "top1": 0.0}
    model.eval()
    with torch.no_grad():
        for first in range(0, len(lists), recipe.batch_size):
            picked = lists[first : first + recipe.batch_size]
            batch = _on(collate(picked), device)
            batch["with_texts"] = None
            logits = model(batch)["plain"]
            ranking, sizes = batch["ranking"], batch["sizes"]
            steps = losses.step_log_probabilities(logits, losses.available(ranking, sizes))
            total["loss"] += len(picked) * losses.listwise(steps, ranking, sizes).item()
            total["top1"] += len(picked) * losses.top_agreement(logits, ranking, sizes).item()
    return {name: value / len(lists) for name, value in total.items()}


def agreement(engine: PERank, lists: Sequence[RankingExample]) -> list[float]:
    """nDCG@10 of the engine's order of each list, ranked as one window, against the golden one:
    of n passages its first is worth n, its last 1."""
    window = max(2, *(len(example.ranking) for example in lists))
    options = RankingOptions(window=window, step=window)
    candidates = (
        CandidateList(
            example.query_id,
            example.query,
            example.passage_ids,
            scores=example.scores,
            vectors=example.embeddings,
            query_embedding=example.query_embedding,
        )
        for example in lists
    )
    discounts = 1 / np.log2(np.arange(10) + 2)
    found = []
    for example, result in zip(lists, engine.rerank_many(candidates, options), strict=True):
        n = len(example.ranking)
        worth = np.empty(n)
        worth[example.ranking] = np.arange(n, 0, -1)
        top = discounts[: min(10, n)]
        best = (np.arange(n, 0, -1)[: len(top)] * top).sum()
        found.append(float((worth[result.order[: len(top)]] * top).sum() / best))
    return found


def engine_of(
    begun: Checkpoint, tokenizer: PreTrainedTokenizerBase, model: RankingTrainee, *, cache: Path
) -> PERank:
    """The engine, with the weights that a model has now.

    Args:
        begun: the checkpoint that the model was made of.
        tokenizer: the LLM's.
        model: in training.
        cache: as for `PERank.from_pretrained`.
    """
    weights = model.weights()
    checkpoint = replace(
        begun,
        body=weights.body,
        projector=weights.projector,
        residual=weights.residual,
        score_residual=weights.score_residual,
    )
    return PERank(
        checkpoint,
        tokenizer,
        cache=cache,
        device=next(model.parameters()).device,
        dtype=torch.float32,
    )


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
        self._found: dict[str, AlignmentExample] = {}
        if recipe.projector_start not in ("ridge", "procrustes"):
            return
        for i in range(len(lists)):
            example = lists[i]
            for j, passage_id in enumerate(example.passage_ids if example.texts else []):
                assert example.texts is not None
                self._found[passage_id] = AlignmentExample(
                    passage_id, example.texts[j], example.embeddings[j]
                )
            if len(self._found) >= recipe.ridge_passages:
                break
        self._list = list(self._found.values())

    def __len__(self) -> int:
        return len(self._found)

    def __getitem__(self, index: Any) -> Any:
        return self._list[index]


def _rates(recipe: RankRecipe) -> dict[str, float]:
    rates = {"projector": recipe.projector_learning_rate}
    rates |= dict.fromkeys(("t", "b", "s"), recipe.residual_learning_rate)
    return {name: rate for name, rate in rates.items() if rate is not None}


def _on(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, dict):
        return {name: _on(value, device) for name, value in batch.items()}
    return batch.to(device) if isinstance(batch, Tensor) else batch


def _card(report: dict[str, Any]) -> str:
    measures = ", ".join(f"{k.removeprefix('dev_')} {v:.4f}" for k, v in report["measures"].items())
    return (
        f"# A PE-Rank checkpoint\n\n"
        f"Trained by `perank train rank`: {report['steps']} of {report['planned']} steps, step "
        f"{report['kept_step']} kept, recipe {report['recipe_hash']}; config.json has the recipe "
        f"and names the data.\n\nOn development lists: {measures or 'not measured'}.\n"
    )
