"""A small real collection and the golden checkpoint: a whole night in a few seconds.

Passages are on five topics with their own words; each query asks for one topic. The golden
checkpoint's own encoder embeds them, so that nothing large is loaded.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perank_tasks.config import Night, NightOptions
from perank_tasks.night import pipeline
from perank_tasks.night.arms import ArmsFile
from perank_tasks.night.plan import plan_night
from perank_tasks.night.site import Site

GOLDEN = Path(__file__).parent / "golden" / "pe-rank-mistral-tiny"
NIGHT = "2026-01-31"

SMALL_MODELS = [
    f"perank.checkpoint={GOLDEN}",
    f"llm-off.checkpoint={GOLDEN}",
    f"cosine.embedder=checkpoint:{GOLDEN}",
    f"fusion.embedder=checkpoint:{GOLDEN}",
]
"""What `set` makes of the built-in arms, so that no large model is loaded."""

TOPICS = {
    "flea": "A flea lives on dogs and cats and its life cycle takes weeks",
    "concrete": "Interior concrete flooring costs so many dollars for each square foot",
    "election": "The election was won by the president with a majority of votes",
    "visceral": "Visceral fat lies around the organs deep in the belly",
    "thai": "Daily life of Thai people begins with rice and the market",
}


def some_passages(each: int = 8) -> list[dict[str, str]]:
    """`each` passages a topic, telling apart by their last words."""
    return [
        {"_id": f"{topic}-{i}", "title": "", "text": f"{text}, says source number {i}."}
        for topic, text in TOPICS.items()
        for i in range(each)
    ]


def some_queries() -> dict[str, str]:
    return {f"q-{topic}": " ".join(text.split()[:6]) for topic, text in TOPICS.items()}


def some_qrels() -> list[tuple[str, str, int]]:
    """Two relevant passages a topic, one of them best, and one judged not relevant."""
    return [
        line
        for topic in TOPICS
        for line in (
            (f"q-{topic}", f"{topic}-3", 3),
            (f"q-{topic}", f"{topic}-5", 1),
            (f"q-{topic}", f"{topic}-0", 0),
        )
    ]


def write_collection(
    folder: Path,
    *,
    passages: Sequence[Mapping[str, Any]] | None = None,
    queries: Mapping[str, str] | None = None,
    qrels: Sequence[tuple[str, str, int]] | None = None,
    run: Sequence[tuple[str, str, float]] | None = None,
) -> str:
    """Write a TREC-layout folder and return its spec; what is not given is as above."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "passages.jsonl").open("w") as file:
        for passage in some_passages() if passages is None else passages:
            file.write(json.dumps(passage) + "\n")
    with (folder / "queries.tsv").open("w") as file:
        for query_id, text in (some_queries() if queries is None else queries).items():
            file.write(f"{query_id}\t{text}\n")
    lines = [f"{q} 0 {p} {grade}\n" for q, p, grade in (some_qrels() if qrels is None else qrels)]
    if lines:
        (folder / "qrels.txt").write_text("".join(lines))
    if run is None:
        return f"files:{folder}"
    with (folder / "given.trec").open("w") as file:
        for rank, (query_id, passage_id, score) in enumerate(run, 1):
            file.write(f"{query_id} Q0 {passage_id} {rank} {score} test\n")
    return f"files:{folder}?run=given.trec"


def small_arms(
    *,
    checkpoint: str = str(GOLDEN),
    embedder: str = f"checkpoint:{GOLDEN}",
    first_stage: str = "bm25",
    depth: int = 100,
    embedding: Mapping[str, Any] | None = None,
    bm25: Mapping[str, Any] | None = None,
    rrf_k: int = 60,
    fusion_weight: float = 0.03,
    **perank: Any,
) -> ArmsFile:
    """The built-in five arms over the golden checkpoint, and first stages of every kind.

    Args:
        embedding: precision and transform of whatever reads embeddings.
        bm25: k1 and b.
        perank: what the arm `perank` is set to.
    """
    vectors, terms = dict(embedding or {}), dict(bm25 or {})
    search = {"embedder": embedder, **vectors, "depth": depth}
    return ArmsFile.of(
        {
            "first-stage": first_stage,
            "first-stages": {
                "bm25": {"kind": "bm25", "depth": depth, **terms},
                "given": {"kind": "given", "depth": depth},
                "dense": {"kind": "dense", **search},
                "hybrid": {"kind": "hybrid", "rrf_k": rrf_k, **search, **terms},
            },
            "arms": {
                "bm25": {"ranker": "first-stage"},
                "cosine": {"ranker": "cosine", "embedder": embedder, **vectors},
                "fusion": {
                    "ranker": "fusion",
                    "embedder": embedder,
                    "weight": fusion_weight,
                    **vectors,
                },
                "perank": {"ranker": "perank", "checkpoint": checkpoint, **vectors, **perank},
                "llm-off": {
                    "ranker": "perank",
                    "checkpoint": checkpoint,
                    "decoding": "residual",
                    **vectors,
                },
            },
        },
        "small arms",
    )


def small_night(spec: str, *, site: Site | None = None, **options: Any) -> Night:
    """A night over a small collection by the golden checkpoint, for every arm.

    Args:
        options: of the night by their names; all others are for `small_arms`.
    """
    of_night = {name: options.pop(name) for name in [*options] if name in NightOptions.model_fields}
    parsed = NightOptions.parse({"collection": spec, "run_date": NIGHT, **of_night})
    assert parsed.run_date
    site = site or Site.from_environment()
    return plan_night(parsed, parsed.run_date, site, arms=small_arms(**options))


def run_night(
    night: Night, *, site: Site | None = None, until: str = "verdict", **options: Any
) -> dict[str, Any]:
    """`pipeline.run_night` at the site that the test's environment names, in this process: what a
    test has replaced is not replaced in others. A page takes as long as all stages before it: it
    is written where `until` says so."""
    return pipeline.run_night(night, site or Site.from_environment().of_a_piece, until, **options)


def small_embedder(folder: Path) -> str:
    """A sentence-transformers model of 32 values a text: the mean of its words' vectors.

    They are the golden encoder's, whose random layers would mix them up.
    """
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(GOLDEN / "encoder"), device="cpu")
    bert = model[0].auto_model
    bert.encoder.layer = torch.nn.ModuleList()
    bert.config.num_hidden_layers = 0
    for same in (bert.embeddings.position_embeddings, bert.embeddings.token_type_embeddings):
        torch.nn.init.zeros_(same.weight)
    model.save(str(folder))
    return str(folder)
