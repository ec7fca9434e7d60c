"""One stage of `perank bench pipeline`, in a process of its own: its peak memory is the stage's.

In: a stage's name and a JSON file with the night, the number of queries and what the stages before
returned. Out: one line of JSON on standard output, see `Measured`. Only the stage is timed, not the
start of Python and its imports; the peak is the whole process's.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from perank_tasks.artifacts.store import Store, artifact_key
from perank_tasks.collections.formats import read_passages, read_queries
from perank_tasks.config import Night
from perank_tasks.night.provenance import fingerprint
from perank_tasks.settings import Settings
from perank_tasks.support.meter import peak_memory
from perank_tasks.support.streams import in_groups

COMPARED_TEXTS = 512
"""Texts that both ways of embedding encode in a turn."""

COMPARED_TURNS = 3


@dataclass
class Measured:
    """What a stage took. `bytes` is what it left on disk; `result` is what it returned."""

    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    bytes: int = 0
    result: Any = None
    details: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """What a stage is to work on."""

    night: Night
    folder: Path
    """Of the corpus."""
    done: dict[str, Any]
    """{stage: what it returned}"""
    vectors: str | None
    """Embeddings whose vectors stand in for those of a corpus that is not embedded."""


def main() -> None:
    """Run the stage that the command line names."""
    name, path = sys.argv[1:]
    values = json.loads(Path(path).read_text(encoding="utf-8"))
    job = Job(
        night=Night.from_json(values.pop("night")), folder=Path(values.pop("folder")), **values
    )
    result, details, seconds, cpu_seconds = STAGES[name](job)
    measured = Measured(
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        peak_memory_bytes=peak_memory(),
        bytes=sum(_size(reference) for reference in _references(result)),
        result=result,
        details=details,
    )
    print(json.dumps(asdict(measured)))


Outcome = tuple[Any, dict[str, float], float, float]
"""What a stage returned, details, seconds and CPU seconds."""


def _timed(run: Callable[[], Any]) -> Outcome:
    start, cpu = time.perf_counter(), time.process_time()
    result = run()
    return result, {}, time.perf_counter() - start, time.process_time() - cpu


def _snapshot(job: Job) -> Outcome:
    from perank_tasks.night.snapshot import take_snapshot

    return _timed(lambda: take_snapshot(job.night))


def _vectors(job: Job) -> Outcome:
    """Not a stage: earlier embeddings that have every text of the corpus, with real vectors.

    Passage i gets the vector of passage i mod n of the n that were embedded.
    """
    assert job.vectors is not None
    store = Store(Settings.from_environment().root)
    real = store.open(job.vectors)
    snapshot = store.open(job.done["snapshot"])
    schema = real.dataset("passages").schema.remove_metadata()
    pool = real.read("passages", ["embedding"])["embedding"].combine_chunks()

    def rows() -> Iterator[pa.RecordBatch]:
        start = 0
        names = ["passage_id", "text_hash"]
        for batch in snapshot.dataset("passages").to_batches(columns=names, batch_readahead=1):
            places = pa.array(np.arange(start, start + batch.num_rows) % len(pool))
            yield pa.record_batch([batch[0], batch[1], pool.take(places)], schema=schema)
            start += batch.num_rows

    def write() -> None:
        key = artifact_key(benchmark="vectors", of=job.done["snapshot"])
        earlier = store.artifact("embeddings", job.night.collection_name, key)
        if earlier.is_published:
            return
        earlier.write_part("passages", in_groups(rows()), schema)
        earlier.write_part("queries", real.read("queries").cast(schema), schema)
        earlier.publish(
            expected={"passages": 1, "queries": 1},
            inputs={},
            config=real.manifest.config,
            counts={},
            provenance={},
        )

    return _timed(write)


def _embed(job: Job) -> Outcome:
    from perank_tasks.night.embed import embed_shard, plan_embedding, publish_embeddings

    snapshot = job.done["snapshot"]

    def run() -> dict[str, str]:
        for work in plan_embedding(job.night, snapshot):
            embed_shard(job.night, snapshot, work)
        return publish_embeddings(job.night, snapshot)

    return _timed(run)


def _index(job: Job) -> Outcome:
    from perank_tasks.night.index import build_index

    return _timed(lambda: build_index(job.night, job.done["snapshot"]))


def _retrieve(job: Job) -> Outcome:
    from perank_tasks.night import index
    from perank_tasks.night.retrieve import plan_retrieval, publish_candidates, retrieve_shard

    assert index  # imported before the clock starts
    # By BM25 alone, which searches no embeddings.
    searched: dict[str, str] = {}
    inputs = (job.night, job.done["snapshot"], job.done["index"], searched)

    def run() -> str:
        for work in plan_retrieval(*inputs):
            retrieve_shard(*inputs, work)
        return publish_candidates(*inputs)

    return _timed(run)


def _join(job: Job) -> Outcome:
    """The arm `cosine`: joining the candidates' embeddings, and little else."""
    from perank_tasks.night.rerank import plan_reranking, publish_rankings, rerank_shard

    inputs = (job.night, job.done["retrieve"], job.done["embed"])

    def run() -> dict[str, str]:
        for work in plan_reranking(job.night, job.done["retrieve"]):
            rerank_shard(*inputs, work)
        return publish_rankings(*inputs)

    return _timed(run)


def _evaluate(job: Job) -> Outcome:
    from perank_tasks.night.evaluate import evaluate

    return _timed(lambda: evaluate(job.night, job.done["join"]))


def _load(job: Job) -> Outcome:
    from perank_tasks.night.load import load

    return _timed(lambda: load(job.night, job.done["evaluate"]))


def _by_hand(job: Job) -> Outcome:
    """bm25s as its documentation shows it: tokenize, index, retrieve."""
    import bm25s
    import Stemmer

    texts = [passage.text for passage in read_passages(job.folder / "passages.jsonl")]
    queries = [query.text for query in read_queries(job.folder / "queries.tsv")]
    stemmer = Stemmer.Stemmer("english")

    def tokens(of: list[str]) -> Any:
        return bm25s.tokenize(of, stopwords="en", stemmer=stemmer, show_progress=False)

    def index() -> Any:
        bm25 = bm25s.BM25(k1=job.night.options.k1, b=job.night.options.b, method="lucene")
        bm25.index(tokens(texts), show_progress=False)
        return bm25

    bm25, _, index_seconds, index_cpu = _timed(index)
    depth = min(job.night.options.depth, len(texts))
    _, _, seconds, cpu = _timed(
        lambda: bm25.retrieve(tokens(queries), k=depth, show_progress=False)
    )
    details = {"index": index_seconds, "retrieve": seconds}
    return None, details, index_seconds + seconds, index_cpu + cpu


def _embedding(job: Job) -> Outcome:
    """The stage's way to embed, and sentence-transformers' plain call, in turn."""
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import LlamaConfig

    from perank_tasks.bench.hardware import matrix_rate
    from perank_tasks.models.find import resolve_model
    from perank_tasks.night.embed import TEXTS_A_CALL
    from perank_tasks.perank.embedders import load

    settings = Settings.from_environment()
    name = job.night.options.embedder
    texts = [passage.text for passage in read_passages(job.folder / "passages.jsonl")]
    ours = load(name, settings)
    plain = SentenceTransformer(str(resolve_model(name, cache=settings.cache).folder))
    plain.eval()
    rates: dict[str, list[float]] = {"ours": [], "plain": []}
    apart = 0.0
    start, cpu = time.perf_counter(), time.process_time()
    for turn in range(COMPARED_TURNS):
        some = texts[turn * COMPARED_TEXTS : (turn + 1) * COMPARED_TEXTS] or texts[:COMPARED_TEXTS]

        def encode(some: list[str] = some) -> np.ndarray:
            calls = range(0, len(some), TEXTS_A_CALL)
            return np.concatenate([ours.encode(some[i : i + TEXTS_A_CALL]) for i in calls])

        def call(some: list[str] = some) -> np.ndarray:
            return plain.encode(some, normalize_embeddings=True, show_progress_bar=False)

        found = {}
        for who, run in (("ours", encode), ("plain", call)):
            found[who], _, seconds, _ = _timed(run)
            rates[who].append(len(some) / seconds)
        apart = max(apart, float(np.abs(found["ours"] - found["plain"]).max()))
    sample = texts[: COMPARED_TEXTS * COMPARED_TURNS]
    limit = plain.max_seq_length or sys.maxsize
    lengths = [min(len(ids), limit) for ids in plain.tokenizer(sample)["input_ids"]]
    # A shape like that of a small LLM's MLP, to say what the machine can do at most.
    shape = LlamaConfig(hidden_size=576, intermediate_size=1536)
    details = {
        **{f"{who}_passages_per_second": statistics.median(r) for who, r in rates.items()},
        "largest_difference": apart,
        "tokens_a_passage": float(np.mean(lengths)),
        "matrix_flops": matrix_rate(shape, torch.device(ours.device), torch.float32),
    }
    return None, details, time.perf_counter() - start, time.process_time() - cpu


STAGES: dict[str, Callable[[Job], Outcome]] = {
    "snapshot": _snapshot,
    "vectors": _vectors,
    "embed": _embed,
    "index": _index,
    "retrieve": _retrieve,
    "join": _join,
    "evaluate": _evaluate,
    "load": _load,
    "bm25s by hand": _by_hand,
    "embedding": _embedding,
}


def machine() -> dict[str, Any]:
    """What the figures were measured on, and how busy it was."""
    settings = Settings.from_environment()
    return {**fingerprint(settings.threads), "load_average": [round(x, 2) for x in os.getloadavg()]}


def _references(result: Any) -> list[str]:
    values = result.values() if isinstance(result, dict) else [result]
    return [value for value in values if isinstance(value, str)]


def _size(reference: str) -> int:
    """Bytes of an artifact, and of the shards that its manifest names."""
    store = Store(Settings.from_environment().root)
    artifact = store.open(reference)
    shards = [r for n, r in artifact.manifest.inputs.items() if n.startswith("shard ")]
    own = sum(path.stat().st_size for path in artifact.folder.rglob("*") if path.is_file())
    return own + sum(map(_size, shards))


if __name__ == "__main__":
    main()
