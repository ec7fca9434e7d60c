"""Training data of small collections, end to end: real stages, a real encoder, real files."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from perank_tasks.collections.formats import read_queries
from perank_tasks.collections.pydocs import DATA
from perank_tasks.errors import ConfigError, TrainingDataError
from perank_tasks.perank.embedders import load
from perank_tasks.settings import Settings
from perank_tasks.training.data import make
from perank_tasks.training.data.list_builder import FirstStage
from perank_tasks.training.data.make import make_training_data
from perank_tasks.training.data.pool import Pool
from perank_tasks.training.data.readers import AlignmentExamples, terms
from tests.small import TOPICS, some_passages, some_qrels, write_collection
from tests.training.data.small import EMBEDDER, columns, small_lists, small_options, the_store


@pytest.fixture
def topics(tmp_path: Path) -> str:
    return write_collection(tmp_path / "topics")


def sentences(topic: str) -> str:
    return f"{TOPICS[topic]}. It is told here again in words of its own. Nothing more is known."


def test_alignment_takes_distinct_passages_of_the_right_length(tmp_path: Path) -> None:
    passages = [
        *({"_id": f"p{i}", "text": f"passage number {i} has six words"} for i in range(30)),
        {"_id": "again", "text": "passage number 3 has six words"},
        {"_id": "short", "text": "two words"},
        {"_id": "long", "text": "word " * 50},
    ]
    spec = write_collection(tmp_path / "c", passages=passages, qrels=[("q-flea", "p0", 1)])
    options = small_options(spec, stage="alignment", passages=20, min_words=3, max_words=40)
    reference = make_training_data(options)
    examples = AlignmentExamples(the_store(), reference)
    ids = [example.passage_id for example in examples]
    assert len(ids) == len(set(ids)) == len(examples) == 20
    assert not {"again", "short", "long"} & set(ids)
    assert ids != sorted(ids, key=lambda name: int(name[1:]))
    counts = examples.artifact.manifest.counts
    assert counts["passages"] == 32
    assert (counts["too_short"], counts["too_long"]) == (1, 1)

    encoder = load(EMBEDDER, Settings.from_environment())
    for example in islice(examples, 3):
        np.testing.assert_allclose(
            example.embedding, encoder.encode([example.text])[0], rtol=0, atol=1e-6
        )
        assert example.embedding.dtype == np.float32

    assert make_training_data(options) == reference
    other = make_training_data(options.model_copy(update={"seed": 1}))
    assert [example.passage_id for example in AlignmentExamples(the_store(), other)] != ids
    nothing = options.model_copy(update={"min_words": 41, "max_words": 45})
    with pytest.raises(TrainingDataError, match="None of 32 passages has 41 to 45 words"):
        make_training_data(nothing)


def test_lists_hold_hard_and_random_candidates_ranked_by_the_teacher(topics: str) -> None:
    examples = small_lists(topics, lists_per_query=3)
    assert len(examples) == 3 * len(TOPICS)
    pool = examples.pool
    first_stage = FirstStage(pool, small_options(topics))
    encoder = load(EMBEDDER, Settings.from_environment())
    matrix = encoder.encode(pool.texts(range(len(pool))))
    for example, line in zip(examples, columns(examples), strict=True):
        vector = encoder.encode([example.query])[0]
        bm25 = first_stage.bm25(example.query)
        teacher = matrix @ vector + 0.008 * bm25
        rows = np.array(line["passage_rows"])
        assert pool.ids(rows) == example.passage_ids
        assert len(set(rows.tolist())) == 6
        assert sorted(example.ranking) == list(range(6))
        assert example.texts == pool.texts(rows)
        np.testing.assert_allclose(example.scores, bm25[rows], rtol=1e-6)
        np.testing.assert_allclose(line["teacher"], teacher[rows], atol=1e-5)
        np.testing.assert_allclose(example.embeddings, matrix[rows], atol=1e-6)
        np.testing.assert_allclose(example.query_embedding, vector, atol=1e-6)
        ranked = teacher[rows][example.ranking]
        assert (np.diff(ranked) <= 1e-6).all()
        # The best eight, and others.
        eighth = np.sort(teacher)[-8]
        hard = np.array(line["hard"])
        assert hard.sum() == 4
        assert (teacher[rows[hard]] >= eighth - 1e-6).all()
        assert (teacher[rows[~hard]] <= eighth + 1e-6).all()
    lists = {tuple(sorted(example.passage_ids)) for example in islice(examples, 3)}
    assert len(lists) == 3


def test_feedback_brings_passages_like_the_best_ones_forward(topics: str) -> None:
    plain = small_lists(topics, lists_per_query=2)
    fed = small_lists(topics, lists_per_query=2, feedback=2.0, feedback_passages=2)
    assert fed.artifact.reference != plain.artifact.reference
    moved = 0
    for before, after, old, new in zip(plain, fed, columns(plain), columns(fed), strict=True):
        assert before.passage_ids == after.passage_ids
        best = np.argsort(-np.array(old["teacher"]))[:2]
        cosines = after.embeddings @ after.embeddings[best].T
        expected = np.array(old["teacher"]) + 2.0 * cosines.mean(1)
        np.testing.assert_allclose(new["teacher"], expected, atol=1e-5)
        assert (np.diff(expected[after.ranking]) <= 1e-6).all()
        moved += before.ranking != after.ranking
    assert moved


def test_feedback_needs_a_teacher() -> None:
    with pytest.raises(ConfigError, match="name a teacher"):
        small_options("files:a", judgements=True, teacher="none", feedback=1.0)


def test_the_same_options_make_the_same_lists_and_other_seeds_others(
    topics: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = small_lists(topics)
    monkeypatch.setenv("PERANK_HOME", str(tmp_path / "elsewhere"))
    second = small_lists(topics)
    assert first.artifact.reference == second.artifact.reference
    assert first.artifact.folder != second.artifact.folder
    assert columns(first) == columns(second)
    other = small_lists(topics, seed=1)
    assert other.artifact.reference != second.artifact.reference
    assert columns(other) != columns(second)


def test_a_list_does_not_change_with_other_queries(topics: str, tmp_path: Path) -> None:
    queries = tmp_path / "few.tsv"
    queries.write_text("a\twhere do dogs get a flea\nb\tfat around the organs\n")
    both = small_lists(topics, queries=str(queries))
    queries.write_text("b\tfat around the organs\n")
    alone = small_lists(topics, queries=str(queries))
    assert [example.query_id for example in both] == ["a", "b"]
    assert alone[0].passage_ids == both[1].passage_ids
    assert alone[0].ranking == both[1].ranking


def test_judgements_come_first_and_the_teacher_breaks_ties(topics: str) -> None:
    examples = small_lists(topics, judgements=True, hard=3, random=3, teacher="bm25")
    grades = {(q, p): grade for q, p, grade in some_qrels()}
    assert len(examples) == len(TOPICS)
    for example, line in zip(examples, columns(examples), strict=True):
        given = [grades.get((example.query_id, p), 0) for p in example.passage_ids]
        assert line["grades"] == given
        # All three judged ones are there, the others are not judged.
        judged = [(example.query_id, p) in grades for p in example.passage_ids]
        assert judged == line["hard"]
        assert sum(judged) == 3
        keys = [(-given[i], -line["teacher"][i], line["passage_rows"][i]) for i in example.ranking]
        assert keys == sorted(keys)
        assert [given[i] for i in example.ranking] == [3, 1, 0, 0, 0, 0]
    # Without a teacher, ties go to the lower row.
    alone = small_lists(topics, judgements=True, hard=3, random=3, teacher="none")
    assert {line["teacher"] for line in columns(alone)} == {None}


def test_relevant_passages_are_certain_where_hard_ones_come_from_a_first_stage(topics: str) -> None:
    examples = small_lists(topics, judgements=True, hard_from="bm25", relevant=1, lists_per_query=4)
    for line in columns(examples):
        relevant = [grade > 0 for grade in line["grades"]]
        assert sum(r and h for r, h in zip(relevant, line["hard"], strict=True)) >= 1
        assert line["grades"][line["ranking"][0]] > 0


def test_collections_join_with_each_text_once_and_every_judgement(tmp_path: Path) -> None:
    one = write_collection(tmp_path / "one")
    mine = [{"_id": f"x{i}", "text": p["text"]} for i, p in enumerate(some_passages()[:10])]
    clash = {"_id": "flea-0", "text": "Another text by the same name, and it is longer than that."}
    two = write_collection(
        tmp_path / "two",
        passages=[*mine, clash],
        queries={"q-flea": "how do fleas live", "other": "pets and parasites"},
        qrels=[("q-flea", "x3", 2), ("other", "flea-0", 3)],
    )
    examples = small_lists(one, two, judgements=True, hard=3, random=3)
    pool = examples.pool
    assert len(pool) == len(some_passages()) + 1
    assert len({*pool.ids(range(len(pool)))}) == len(pool)
    assert pool.ids([len(pool) - 1]) == ["two/flea-0"]
    manifest = pool.artifact.manifest
    assert manifest.counts == {"passages": 41, "duplicates": 10, "changed": 0}
    lines = {line["query_id"]: line for line in columns(examples)}
    assert len(lines) == len(TOPICS) + 2
    # x3 is a name of flea-3's text.
    line = lines["two/q-flea"]
    best = line["passage_rows"][line["ranking"][0]]
    assert pool.ids([best]) == ["flea-3"]
    other = lines["two/other"]
    assert pool.ids([other["passage_rows"][other["ranking"][0]]]) == ["two/flea-0"]
    np.testing.assert_allclose(
        pool.embeddings([len(pool) - 1]),
        load(EMBEDDER, Settings.from_environment()).encode([clash["text"]]),
        atol=1e-6,
    )


def test_two_collections_of_one_name_are_refused(topics: str, tmp_path: Path) -> None:
    other = write_collection(tmp_path / "other" / "topics")
    with pytest.raises(TrainingDataError, match="give each a name of its own"):
        small_lists(topics, other)


def test_a_query_that_finds_nothing_has_no_list_and_is_counted(topics: str, tmp_path: Path) -> None:
    queries = tmp_path / "mine.tsv"
    queries.write_text("a\twhere do dogs get a flea\nb\txylophones\n")
    examples = small_lists(topics, queries=str(queries), hard_from="bm25")
    assert [example.query_id for example in examples] == ["a"]
    counts = examples.artifact.manifest.counts
    assert (counts["queries"], counts["queries_without_candidates"]) == (1, 1)


def test_evaluation_queries_are_refused_or_left_out(topics: str, tmp_path: Path) -> None:
    queries = tmp_path / "mine.tsv"
    queries.write_text(
        "1\tA FLEA lives on?\n2\tvisceral fat and organs\n3\tHow do I copy a directory tree?\n"
        "4\tvisceral fat and organs!\n"
    )
    evaluation = write_collection(tmp_path / "dl", queries={"e": "a flea lives on"})
    with pytest.raises(TrainingDataError, match=r"1 of 3 training queries(.|\n)*is dl's e"):
        small_lists(topics, queries=str(queries), evaluation=(evaluation,))
    examples = small_lists(
        topics, queries=str(queries), evaluation=(evaluation,), drop_evaluation_queries=True
    )
    assert {example.query_id for example in examples} == {"2", "3"}
    counts = examples.artifact.manifest.counts
    assert counts["queries_of_evaluation_collections"] == 1
    assert counts["queries_repeated"] == 1
    # pydocs is an evaluation collection without being named.
    asked = read_queries(DATA / "queries.tsv")[0].text
    queries.write_text(f"1\t{asked.upper()}\n")
    with pytest.raises(TrainingDataError, match="is pydocs's"):
        small_lists(topics, queries=str(queries))
    with pytest.raises(TrainingDataError, match="is topics's"):
        small_lists(topics, evaluation=(topics,))


def test_cloze_queries_are_sentences_that_their_passages_lose(tmp_path: Path) -> None:
    passages = [
        {"_id": f"{topic}-{i}", "text": f"{sentences(topic)} Source {i} said so in the end."}
        for topic in TOPICS
        for i in range(4)
    ]
    spec = write_collection(tmp_path / "c", passages=passages, qrels=[("q-flea", "flea-0", 1)])
    options = {"queries": "cloze", "judgements": True, "query_limit": 8}
    texts = {p["_id"]: p["text"] for p in passages}
    for drop in (0.0, 1.0):
        examples = small_lists(spec, **options, cloze_drop=drop)
        assert len(examples) <= 8
        encoder = load(EMBEDDER, Settings.from_environment())
        for example in examples:
            best = example.ranking[0]
            name = example.passage_ids[best]
            assert example.query_id == f"cloze-{name}"
            assert example.query in texts[name]
            assert (example.query in example.texts[best]) == (drop == 0.0)
            np.testing.assert_allclose(
                example.embeddings[best], encoder.encode([example.texts[best]])[0], atol=1e-6
            )
    # The words of a sentence are a query once, whichever passage has them.
    assert len({query for _, query in examples.queries}) == len(examples)
    assert terms(examples.artifact)["cloze"]


def test_a_killed_run_goes_on_from_whole_shards(
    topics: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = tmp_path / "many.tsv"
    lines = [f"{i}\t{TOPICS['flea']} {i} {i * 7}\n" for i in range(10)]
    queries.write_text("".join(lines))
    monkeypatch.setattr(make, "QUERIES_A_SHARD", 4)
    undisturbed = columns(small_lists(topics, queries=str(queries)))
    monkeypatch.setenv("PERANK_HOME", str(tmp_path / "second"))

    write, written = make._write_shard, []

    def killed(artifact: object, shard: int, *others: object) -> None:
        if shard == 2:
            raise KeyboardInterrupt
        written.append(shard)
        write(artifact, shard, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(make, "_write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        small_lists(topics, queries=str(queries))
    assert not list(the_store().published("training_data", "topics"))

    def counted(artifact: object, shard: int, *others: object) -> None:
        written.append(shard)
        write(artifact, shard, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(make, "_write_shard", counted)
    assert columns(small_lists(topics, queries=str(queries))) == undisturbed
    assert written == [0, 1, 2]


def test_readers_read_by_place(topics: str) -> None:
    examples = small_lists(topics, lists_per_query=2)
    assert [examples[place].query_id for place in range(10)] == [q for q, _ in examples.queries]
    assert examples[-1].query_id == examples[9].query_id
    with pytest.raises(IndexError):
        examples[10]
    assert isinstance(Pool(examples.pool.artifact).vectors, np.memmap)
    with pytest.raises(TrainingDataError, match="data for ranking, and alignment is asked for"):
        AlignmentExamples(the_store(), examples.artifact.reference)


def test_half_precision_halves_the_vectors_and_gives_float32(topics: str) -> None:
    examples = small_lists(topics, embedding_precision="float16")
    assert examples.pool.vectors.dtype == np.float16
    assert examples[0].embeddings.dtype == np.float32
    assert examples[0].query_embedding is not None
    assert examples[0].query_embedding.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(examples[0].embeddings, axis=1), 1, atol=2e-3)


def test_terms_are_kept_for_every_source(topics: str, tmp_path: Path) -> None:
    (tmp_path / "asked").mkdir()
    queries = tmp_path / "asked" / "queries.tsv"
    queries.write_text("a\twhere do dogs get a flea\n")
    said = "MS MARCO, non-commercial research, see a=b"
    examples = small_lists(topics, queries=str(queries), terms=(f"asked={said}",))
    found = terms(examples.artifact)
    assert found["asked"] == said
    assert found["topics"].startswith("not stated")
    with pytest.raises(TrainingDataError, match=r"Terms are given for askd, but .* topics, asked"):
        small_lists(topics, queries=str(queries), terms=("askd=x",))


def test_what_cannot_be_made_is_explained(topics: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match="There are 40 passages, and a list takes 40"):
        small_lists(topics, hard=40, depth=40)
    queries = tmp_path / "odd.tsv"
    queries.write_text("a\tzyx wvu\n")
    with pytest.raises(TrainingDataError, match="No query has a hard candidate"):
        small_lists(topics, queries=str(queries), teacher="bm25")
    unjudged = write_collection(tmp_path / "unjudged", qrels=[])
    with pytest.raises(TrainingDataError, match="No judgement of unjudged is of a passage"):
        small_lists(unjudged, judgements=True)


def test_vectors_of_a_night_are_taken_over(topics: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = small_lists(topics)
    embeddings = [a.reference for a in the_store().published("embeddings", "topics")]
    assert len(embeddings) == 1

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was embedded again")

    monkeypatch.setattr("perank_tasks.perank.embedders.load", refuse)
    monkeypatch.setattr("perank_tasks.night.embed.load", refuse)
    monkeypatch.setattr("perank_tasks.training.data.pool.load", refuse)
    second = small_lists(topics, seed=5, lists_per_query=2)
    assert len(second) == 2 * len(first)


def test_a_query_that_is_a_passage_is_in_no_list_of_its_own(tmp_path: Path) -> None:
    passages = some_passages(each=4)
    own = [passages[0], passages[5]]
    spec = write_collection(
        tmp_path / "c",
        passages=passages,
        queries={passage["_id"]: passage["text"] for passage in own},
        qrels=[(own[0]["_id"], passages[1]["_id"], 1)],
    )
    (tmp_path / "c" / "passages.jsonl").rename(tmp_path / "c" / "corpus.jsonl")
    for options in ({}, {"hard": 15, "random": 4, "depth": 15}):
        examples = small_lists(spec, lists_per_query=3, **options)
        assert len(examples) == 6
        assert all(example.query_id not in example.passage_ids for example in examples)
    kept = small_lists(f"{spec}?identical_ids=keep&name=k", lists_per_query=3)
    assert any(example.query_id in example.passage_ids for example in kept)
    with pytest.raises(TrainingDataError, match="There are 20 passages, and a list takes"):
        small_lists(spec, hard=15, random=5, depth=15)
