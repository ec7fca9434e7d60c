"""Model cards: in, a run with what it trained and measured; out, Markdown for the checkpoint.

Everything in a card is read from manifests and tables: nothing is claimed that was not measured.
"""

from typing import Any

from perank_tasks.artifacts.store import Artifact, Store
from perank_tasks.models.find import GGUF, LLM
from perank_tasks.support.markdown import markdown_table
from perank_tasks.training.data.readers import terms
from perank_tasks.training.evaluation import MAIN, Evaluation, in_words, score
from perank_tasks.training.kept import report_of
from perank_tasks.training.night import NEW
from perank_tasks.training.recipe import StageRecipe
from perank_tasks.training.run_options import Training

LIMITS = """\
- It orders passages that a first stage has found; it finds none, and says nothing of whether the
  best of them answers the query.
- It was measured on the collection above alone. On another language, another kind of text or
  longer passages it may rank worse than the first stage: measure it there first (`perank nightly
  --checkpoint`), beside its first stage and its own `llm-off` arm.
- It learnt what its teacher or its judges preferred, their errors and biases included. It is not
  for decisions about people, and its scores mean nothing beyond their order.
- It reads embeddings of its own embedder only."""

MEASURES = (MAIN, "MRR@10", "MAP")


def model_card(training: Training, trained: Artifact, evaluation: Artifact) -> str:
    """The card of a checkpoint.

    Args:
        training: the run.
        trained: what stage 2 made.
        evaluation: what `stages.evaluate` measured.
    """
    store, about = trained.store, evaluation.manifest.config
    measured = Evaluation.read(store, evaluation.reference)
    arms = [
        (name, *(score(values, measure) for measure in MEASURES))
        for name, values in measured.values.items()
    ]
    tests = [
        f"- {NEW} against {other}: {MAIN} {in_words(test)}"
        for other, test in measured.tests.items()
    ]
    queries = len(measured.values[NEW][MAIN])
    parts = [
        f"# {training.options.name}",
        "A PE-Rank checkpoint (arXiv 2406.14848): an LLM that reranks passages, each read as one "
        "embedding. Written by `perank train` from what was recorded.",
        "## What it is made of",
        _made_of(training, store, trained),
        "## What it was trained on",
        _data(training, store, trained),
        "## What it gets",
        f"{measured.collection}, {queries} judged queries, {about['first_stage']}, "
        f"{about['depth']} candidates a query, window {about['window']}, step {about['step']}; "
        f"champion: {about['champion']}. Means with 95% intervals over queries.",
        markdown_table(("", *MEASURES), arms),
        "Paired randomisation tests, two-sided:",
        "\n".join(tests),
        "The best step was chosen on training queries that were held out, and the collection above "
        "was used to decide on promotion: figures to report belong on another one.",
        "## How it was trained",
        _how(report_of(trained)),
        _recipes(training),
        "## What it must not be used for",
        LIMITS,
        "## Where",
        _where(trained.manifest.provenance),
    ]
    return "\n\n".join(parts) + "\n"


def _made_of(training: Training, store: Store, trained: Artifact) -> str:
    rank = training.rank
    base = rank.base_model if training.start is None else f"checkpoint {training.start}"
    layers = f", its first {rank.num_layers} layers" if rank.num_layers else ""
    rows = [("LLM", f"{base}{layers}"), ("learnt of it", rank.trained_llm)]
    if training.start is None and rank.base_model == LLM:
        rows[0] = ("LLM", f"{base}{layers}; {GGUF}, a 4-bit quantised file, made float32 again")
    rows += [
        ("embedder", training.ranking_data.embedder),
        ("projector", f"{rank.projector_type}, begun {rank.projector_start}"),
        ("prompt", rank.prompt + (", with a query token" if rank.query_token else "")),
        ("residual", _residual(trained)),
    ]
    if aligned := trained.manifest.inputs.get("start"):
        after = report_of(store.open(aligned))["after"]
        rows.append(
            (
                "alignment",
                f"{after['loss']:.3f} nats a token of text from its own embedding, "
                f"{after['control']:.3f} from another's; difference {after['gain']:+.3f} "
                f"[{after['low']:+.3f}, {after['high']:+.3f}], {after['passages']} passages",
            )
        )
    return markdown_table(("", ""), rows)


def _residual(trained: Artifact) -> str:
    report = report_of(trained)
    if not report.get("residual"):
        return "none"
    t, b = report["residual"]
    s = report.get("score_residual")
    logit = f"{t:.4g}·(h·p_i) + {b:.4g}·(p_q·p_i)"
    return logit + (f" + {s:.4g}·first-stage score" if s is not None else "")


def _data(training: Training, store: Store, trained: Artifact) -> str:
    inputs = trained.manifest.inputs
    sources = {"stage 2": inputs["data"]}
    if "start" in inputs:
        sources["stage 1"] = store.open(inputs["start"]).manifest.inputs["data"]
    lines: list[str] = []
    notes: dict[str, str] = {}
    for stage, reference in sources.items():
        artifact = store.open(reference)
        counts = ", ".join(
            f"{name.replace('_', ' ')} {value:,}"
            for name, value in artifact.manifest.counts.items()
            if isinstance(value, int)
        )
        lines.append(f"- {stage}: `{reference}` ({counts})")
        notes |= terms(artifact)
    options = training.ranking_data
    judged = ", after the judgements" if options.judgements else ""
    return "\n".join(
        [
            *lines,
            f"- queries: {options.queries}; teacher: {options.teacher}{judged}; {options.hard} "
            f"hard and {options.random} random candidates a list",
            f"- no query of {training.development} is among them: they were compared by text",
            *(f"- terms of {source}: {note}" for source, note in notes.items()),
        ]
    )


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
    recipes: dict[str, StageRecipe] = {"stage 2": training.rank}
    if training.options.align:
        recipes = {"stage 1": training.align, **recipes}
    names = list(dict.fromkeys(name for recipe in recipes.values() for name in recipe.model_dump()))
    rows = [
        (name, *(_value(recipe.model_dump().get(name, "")) for recipe in recipes.values()))
        for name in names
    ]
    return f"Preset {training.options.preset}.\n\n" + markdown_table(("", *recipes), rows)


def _value(value: Any) -> str:
    return "–" if value is None else str(value)


def _where(provenance: dict[str, str]) -> str:
    names = ("commit", "code", "python", "platform", "processor", "accelerators", "threads")
    libraries = ("library.torch", "library.transformers")
    rows = [(name, provenance[name]) for name in (*names, *libraries) if name in provenance]
    return markdown_table(("", ""), rows)
