"""Where a run names all candidates, only these are embedded; whole nights are not short of any."""

from pathlib import Path

from perank_tasks.artifacts.store import Artifact
from perank_tasks.collections.spec import with_run
from perank_tasks.config import NightOptions
from perank_tasks.night.pipeline import run_night
from perank_tasks.night.plan import plan_night
from perank_tasks.night.site import Site
from tests.small import NIGHT, SMALL_MODELS, write_collection


def embed(spec: str, *changes: str) -> Artifact:
    """The embeddings of a night of the arm `cosine`."""
    site = Site.from_environment()
    options = NightOptions.parse(
        {"collection": spec, "arms": ("cosine",), "set": (*SMALL_MODELS, *changes)}
        | {"run_date": NIGHT}
    )
    night = plan_night(options, options.run_date, site)
    (reference,) = run_night(night, site, until="embed")["embed"].values()
    return site.store.open(reference)


def ids(artifact: Artifact) -> set[str]:
    return set(artifact.read("passages", ["id"])["id"].to_pylist())


def test_a_run_embeds_what_it_names_and_reuses_what_is_there(tmp_path: Path) -> None:
    spec = write_collection(tmp_path / "topics")

    def given(name: str, *passages: str) -> str:
        run = tmp_path / name
        run.write_text("".join(f"q-flea Q0 {p} 1 {-i} x\n" for i, p in enumerate(passages)))
        return with_run(spec, run)

    first = embed(given("first", "flea-1", "thai-2", "flea-3"), "first-stage=given")
    assert ids(first) == {"flea-1", "thai-2", "flea-3"}
    second = embed(given("second", "flea-1", "thai-4"), "first-stage=given")
    assert ids(second) == {"flea-1", "thai-4"}
    assert second.manifest.counts["embedded"] == 1  # the queries' vectors are there, too
    whole = embed(spec)
    assert len(ids(whole)) == 40
    third = embed(given("third", "thai-7"), "first-stage=given")
    assert third.manifest.counts["embedded"] == 0
    beside = embed(given("fourth", "thai-7"))  # its first stage is BM25
    assert len(ids(beside)) == 40
    assert beside.manifest.counts["embedded"] == 0
