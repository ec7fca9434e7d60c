"""Model cards: in, a run with what it trained and measured; out, Markdown for the checkpoint.

`card.md` is the template. Everything in a card is read from manifests and tables: nothing is
claimed that was not measured.
"""

from pathlib import Path

from jinja2 import StrictUndefined, Template

from perank_tasks.artifacts.store import Artifact
from perank_tasks.models.find import LLM
from perank_tasks.support.markdown import markdown_table
from perank_tasks.training.data.readers import terms
from perank_tasks.training.evaluation import MAIN, NEW, Evaluation, in_words, score
from perank_tasks.training.kept import report_of
from perank_tasks.training.run_options import Training

SHOWN = (MAIN, "MRR@10", "MAP")


def model_card(training: Training, trained: Artifact, measured: Evaluation) -> str:
    """The card of a checkpoint.

    Args:
        training: the run.
        trained: what stage 2 made.
        measured: by `stages.evaluate`.
    """
    store, inputs, rank = trained.store, trained.manifest.inputs, training.rank
    data, aligned = {"stage 2": store.open(inputs["data"])}, None
    if "start" in inputs:
        start = store.open(inputs["start"])
        data["stage 1"], aligned = store.open(start.manifest.inputs["data"]), report_of(start)
    llm = rank.base_model if training.start is None else f"checkpoint {training.start}"
    if llm == LLM:
        llm += "; its package carries a 4-bit quantised file, made float32 again"
    arms = [
        (name, *(score(values, measure) for measure in SHOWN))
        for name, values in measured.values.items()
    ]
    tests = measured.tests.items()
    text = Path(__file__).with_name("card.md").read_text(encoding="utf-8")
    template = Template(text, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return template.render(
        training=training,
        run=training.options,
        llm=llm,
        rank=rank,
        options=training.ranking_data,
        report=report_of(trained),
        aligned=aligned and aligned["after"],
        data=data,
        terms={name: note for each in data.values() for name, note in terms(each).items()},
        collection=measured.collection,
        queries=len(measured.values[NEW][MAIN]),
        measures=markdown_table(("", *SHOWN), arms),
        tests=[f"{NEW} against {other}: {MAIN} {in_words(test)}" for other, test in tests],
        recipes=_recipes(training),
        where=markdown_table(("", ""), sorted(trained.manifest.provenance.items())),
    )


def _recipes(training: Training) -> str:
    recipes = {"stage 1": training.align.model_dump()} if training.options.align else {}
    recipes["stage 2"] = training.rank.model_dump()
    names = list(dict.fromkeys(name for recipe in recipes.values() for name in recipe))
    rows = [(name, *(recipe.get(name, "") for recipe in recipes.values())) for name in names]
    return markdown_table(("", *recipes), rows)
