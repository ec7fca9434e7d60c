"""Model cards: in, a run with what it trained and measured; out, Markdown for the checkpoint.

Everything in a card is read from manifests and tables: nothing is claimed that was not measured.
"""

from collections.abc import Iterator
from typing import Any

from perank_tasks.artifacts.store import Artifact
from perank_tasks.models.find import LLM
from perank_tasks.support.markdown import markdown_table
from perank_tasks.training.data.readers import terms
from perank_tasks.training.evaluation import MAIN, Evaluation, in_words, score
from perank_tasks.training.kept import report_of
from perank_tasks.training.night import NEW
from perank_tasks.training.run_options import Training

MEASURES = (MAIN, "MRR@10", "MAP")

CARD = """\
# {name}

A PE-Rank checkpoint (arXiv 2406.14848): an LLM that reranks passages, each read as one embedding. \
Written by `perank train` from what was recorded.

## What it is made of

{made_of}

## What it was trained on

{data}

## What it gets

{collection}, {queries} judged queries, {first_stage}, {depth} candidates a query, window \
{window}, step {step}; champion: {champion}. Means with 95% intervals over queries.

{measures}

Paired randomisation tests, two-sided:

{tests}

The best step was chosen on training queries that were held out, and the collection above was used \
to decide on promotion: figures to report belong on another one.

## How it was trained

{how}

Preset {preset}.

{recipes}

## What it must not be used for

- It orders passages that a first stage has found; it finds none, and says nothing of whether the
  best of them answers the query.
- It was measured on the collection above alone. On another language, another kind of text or
  longer passages it may rank worse than the first stage: measure it there first (`perank nightly
  --set perank.checkpoint=…`), beside its first stage and its own `llm-off` arm.
- It learnt what its teacher or its judges preferred, their errors and biases included. It is not
  for decisions about people, and its scores mean nothing beyond their order.
- It reads embeddings of its own embedder only.

## Where

{where}
"""


def model_card(training: Training, trained: Artifact, evaluation: Artifact) -> str:
    """The card of a checkpoint.

    Args:
        training: the run.
        trained: what stage 2 made.
        evaluation: what `stages.evaluate` measured.
    """
    measured = Evaluation.read(trained.store, evaluation.reference)
    arms = [
        (name, *(score(values, measure) for measure in MEASURES))
        for name, values in measured.values.items()
    ]
    tests = measured.tests.items()
    return CARD.format(
        **evaluation.manifest.config,
        name=training.options.name,
        made_of=markdown_table(("", ""), _made_of(training, trained).items()),
        data="\n".join(f"- {line}" for line in _data(training, trained)),
        queries=len(measured.values[NEW][MAIN]),
        measures=markdown_table(("", *MEASURES), arms),
        tests="\n".join(f"- {NEW} against {who}: {MAIN} {in_words(test)}" for who, test in tests),
        how=_how(report_of(trained)),
        preset=training.options.preset,
        recipes=_recipes(training),
        where=markdown_table(("", ""), sorted(trained.manifest.provenance.items())),
    )


def _made_of(training: Training, trained: Artifact) -> dict[str, str]:
    rank, report = training.rank, report_of(trained)
    llm = rank.base_model if training.start is None else f"checkpoint {training.start}"
    if rank.num_layers:
        llm += f", its first {rank.num_layers} layers"
    if training.start is None and rank.base_model == LLM:
        llm += "; its package carries a 4-bit quantised file, made float32 again"
    rows = {
        "LLM": llm,
        "learnt of it": rank.trained_llm,
        "embedder": training.ranking_data.embedder,
        "projector": f"{rank.projector_type}, begun {rank.projector_start}",
        "prompt": rank.prompt + (", with a query token" if rank.query_token else ""),
        "residual": "none",
    }
    if report["residual"]:
        t, b = report["residual"]
        rows["residual"] = f"{t:.4g}·(h·p_i) + {b:.4g}·(p_q·p_i)"
        if (s := report["score_residual"]) is not None:
            rows["residual"] += f" + {s:.4g}·first-stage score"
    if aligned := trained.manifest.inputs.get("start"):
        after = report_of(trained.store.open(aligned))["after"]
        rows["alignment"] = (
            f"{after['loss']:.3f} nats a token of text from its own embedding, "
            f"{after['control']:.3f} from another's; difference {after['gain']:+.3f} "
            f"[{after['low']:+.3f}, {after['high']:+.3f}], {after['passages']} passages"
        )
    return rows


def _data(training: Training, trained: Artifact) -> Iterator[str]:
    store, inputs, options = trained.store, trained.manifest.inputs, training.ranking_data
    data = {"stage 2": store.open(inputs["data"])}
    if "start" in inputs:
        data["stage 1"] = store.open(store.open(inputs["start"]).manifest.inputs["data"])
    for stage, artifact in data.items():
        counts = artifact.manifest.counts.items()
        shown = (f"{k.replace('_', ' ')} {n:,}" for k, n in counts if isinstance(n, int))
        yield f"{stage}: `{artifact.reference}` ({', '.join(shown)})"
    judged = ", after the judgements" if options.judgements else ""
    yield (
        f"queries: {options.queries}; teacher: {options.teacher}{judged}; {options.hard} hard and "
        f"{options.random} random candidates a list"
    )
    yield f"no query of {training.development} is among them: they were compared by text"
    notes = {source: note for artifact in data.values() for source, note in terms(artifact).items()}
    for source, note in notes.items():
        yield f"terms of {source}: {note}"


def _how(report: dict[str, Any]) -> str:
    kept = f"step {report['kept_step']}"
    if report.get("kept_measure") is not None:
        kept += f", the best on held-out lists ({report['kept_measure']:.4f})"
    return (
        f"{report['steps']} of {report['planned']} steps in {report['seconds'] / 60:.1f} minutes "
        f"(ended by: {report['stopped']}); kept: {kept}. The curves are beside the checkpoint, in "
        "`run/`."
    )


def _recipes(training: Training) -> str:
    recipes = {"stage 1": training.align.model_dump()} if training.options.align else {}
    recipes["stage 2"] = training.rank.model_dump()
    names = list(dict.fromkeys(name for recipe in recipes.values() for name in recipe))
    rows = [(name, *(recipe.get(name, "") for recipe in recipes.values())) for name in names]
    return markdown_table(("", *recipes), rows)
