"""The file of arms: what it may say, what is refused, and nights of arms that it declares."""

from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest

from perank_tasks.config import Night, NightOptions
from perank_tasks.errors import ConfigError
from perank_tasks.night.arms import ARMS, FIRST_STAGES, ArmsFile
from perank_tasks.night.plan import plan_night
from perank_tasks.night.site import Site
from perank_tasks.rankers.cosine import FusionOptions
from perank_tasks.rankers.perank import PERankOptions
from perank_tasks.settings import Settings
from tests.small import NIGHT, TOPICS, run_night, small_arms, write_collection

BM25 = '[first-stages.bm25]\nkind = "bm25"\n'
HEAD = f'first-stage = "bm25"\n{BM25}'


def file_of(folder: Path, text: str) -> ArmsFile:
    path = folder / "my-arms.toml"
    path.write_text(text)
    return ArmsFile.read(path)


def with_arms(arms: dict[str, dict[str, Any]], **options: Any) -> ArmsFile:
    """The first stages of `small_arms`, and these arms: each is `like` one there, but for some."""
    small = small_arms(**options)
    declared = {}
    for name, arm in arms.items():
        own = {key: value for key, value in arm.items() if key != "like"}
        declared[name] = small.tables[ARMS][arm["like"]] | own
    return ArmsFile.of({**small.tables, ARMS: declared}, "some arms")


def planned(spec: str, file: ArmsFile, run_date: str = NIGHT, **options: Any) -> Night:
    parsed = NightOptions.parse({"collection": spec, **options})
    site = Site.from_environment()
    return plan_night(parsed, date.fromisoformat(run_date), site, arms=file)


def answer(statement: str) -> list[tuple]:
    path = Settings.from_environment().published_warehouse
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute(statement).fetchall()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[arms.a]\nranker = "perrank"', r"arm a: ranker is 'perrank'.*Did you mean perank"),
        ('[arms.a]\nranker = ["perank"]', r"arm a: ranker is \['perank'\]"),
        ("[arms.a]\nwindow = 5", "arm a: ranker is None; expected first-stage"),
        (
            '[arms.a]\nranker = "perank"\nwindw = 5',
            r"arm a: .* perank .*\n  windw: there is no such option.*Did you mean window",
        ),
        (
            '[arms.a]\nranker = "cosine"\nwindow = 5',
            r"arm a: .* cosine are not valid:\n  window: there is no such option",
        ),
        ('[arms.a]\nranker = "perank"\nwindow = 1', r"arm a: .*\n  window: .*\(found 1\)"),
        (
            '[arms.a]\nranker = "perank"\nstep = 30',
            r"arm a: .*\n.*step must be from 1 to the window's 20, found 30",
        ),
        (
            '[arms.a]\nranker = "perank"\ndecoding = "fre"',
            r"arm a: .*\n  decoding: .*Did you mean free\?",
        ),
        (
            '[arms.a]\nranker = "perank"\ndecoding = "residual"\norders = 2',
            r"arm a: .*\n.*orders average an LLM's rankings, and residual has no LLM",
        ),
        ('[arms.a]\nranker = "cosine"\ntransform = "int9"', r"arm a: .*\n  transform: .*int9"),
        ('[arms.a]\nranker = "cosine"\ndepth = 0', "arm a: depth is 0; expected a whole number"),
        ('[arms.a]\nranker = "cosine"\ndepth = true', "arm a: depth is True"),
        ("", "declares no arms"),
        ('[arms]\na = "perank"', r"arms holds tables, written as \[arms.NAME\]"),
        ('[arms."a b"]\nranker = "cosine"', "arms names one 'a b'"),
        ('[arm.a]\nranker = "cosine"', r"'arm' is no part of a file of arms.*Did you mean arms"),
        ("arms = [", "is no TOML"),
    ],
)
def test_what_is_wrong_is_named_by_file_arm_and_key(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        file_of(tmp_path, f"{HEAD}{text}\n").select()
    assert str(tmp_path / "my-arms.toml") in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'first-stage = "bm52"\n' + BM25,
            r"arm a: there is no first stage 'bm52'; declared are bm25. Did you mean bm25\?",
        ),
        (BM25, "arm a names no first stage, and the file has no first-stage for all"),
        (HEAD + "dept = 1", r"first stage bm25 .*\n  dept: .*no such option.*Did you mean depth"),
        (HEAD + "depth = 0", r"first stage bm25 .*\n  depth: .*\(found 0\)"),
        (HEAD + "rrf_k = 10", "a first stage of kind bm25 reads no rrf_k"),
        (
            'first-stage = "d"\n[first-stages.d]\nkind = "dense"\nk1 = 1.2',
            "a first stage of kind dense reads no k1",
        ),
        (HEAD + "depth = 10", r"arm a: depth is 40, and first stage bm25 finds 10"),
        ('first-stage = "g"\n[first-stages.g]\nkind = "given"', "arm a begins with the collect"),
    ],
)
def test_a_first_stage_that_cannot_be_is_refused_with_the_arm_that_wants_it(
    tmp_path: Path, text: str, message: str
) -> None:
    spec = write_collection(tmp_path / "topics")
    file = file_of(tmp_path, f'{text}\n[arms.a]\nranker = "first-stage"\ndepth = 40\n')
    with pytest.raises(ConfigError, match=message):
        planned(spec, file)


def test_arms_and_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    file = file_of(tmp_path, HEAD + '[arms.cosine]\nranker = "cosine"')
    message = r"no arm 'cosin' in .*my-arms.toml; declared are cosine. Did you mean cosine\?"
    with pytest.raises(ConfigError, match=message):
        file.select(["cosin"])
    with pytest.raises(ConfigError, match=r"nowhere.toml cannot be read"):
        ArmsFile.read(tmp_path / "nowhere.toml")


def test_keys_are_written_with_hyphens_or_underscores(tmp_path: Path) -> None:
    text = 'first{0}stage = "x"\n[first{0}stages.x]\nkind = "hybrid"\nrrf{0}k = 5\n' + (
        '[arms.a]\nranker = "perank"\nfirst{0}stage = "x"\ntop{0}k = 3\norder{0}seed = 2\n'
    )
    hyphens, underscores = (file_of(tmp_path, text.format(sign)) for sign in "-_")
    assert hyphens.select() == underscores.select()
    assert hyphens.first_stage("x", of="a") == underscores.first_stage("x", of="a")
    options = hyphens.select()[0].options
    assert isinstance(options, PERankOptions)
    assert (options.top_k, options.order_seed) == (3, 2)


def test_changes_set_what_they_name_and_nothing_else() -> None:
    file = ArmsFile.read()
    changed = file.change(
        [
            "perank.window=50",
            "perank.top-k=10",
            "perank.checkpoint=runs/0.5",
            "fusion.weight=0.1",
            "fusion.depth=20",
            "first-stages.bm25.k1=1.2",
            "first_stage=given",
        ]
    )
    perank, fusion = changed.select(["perank", "fusion"])
    assert isinstance(perank.options, PERankOptions)
    assert isinstance(fusion.options, FusionOptions)
    assert (perank.options.window, perank.options.top_k) == (50, 10)
    assert perank.options.checkpoint == "runs/0.5"
    assert (fusion.options.weight, fusion.depth) == (0.1, 20)
    assert perank.first_stage == fusion.first_stage == "given"
    assert changed.first_stage("bm25", of="").k1 == 1.2
    assert changed.change(["perank.top_k=", "fusion.depth="]).select(["perank", "fusion"]) == [
        *file.change(
            ["perank.window=50", "perank.checkpoint=runs/0.5", "first-stage=given"]
        ).select(["perank"]),
        *file.change(["fusion.weight=0.1", "first-stage=given"]).select(["fusion"]),
    ]
    unchanged = ["bm25", "cosine", "llm-off"]
    assert file.change(["perank.window=50"]).select(unchanged) == file.select(unchanged)
    assert file.select() == ArmsFile.read().select()
    assert file.names == ["bm25", "cosine", "fusion", "perank", "llm-off"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("perank.window", "'perank.window' sets nothing: write it as NAME=VALUE"),
        ("window=5", r"window=5 sets nothing.*declares no arm 'window'.*ARM.KEY=VALUE"),
        ("perrank.window=5", "no arm 'perrank'. Did you mean perank"),
        ("first-stages.bm52.k1=1", "no first stage 'bm52'. Did you mean bm25"),
        ("first-stages=given", "no arm 'first-stages'. Did you mean first-stage"),
    ],
)
def test_a_change_of_nothing_is_refused(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ArmsFile.read().change([word])


def test_a_changed_key_is_checked_as_the_files_own() -> None:
    with pytest.raises(ConfigError, match=r"arm perank: .*\n  windw: there is no such option"):
        ArmsFile.read().change(["perank.windw=5"]).select(["perank"])


def test_the_options_file_goes_before_the_deployments_and_that_before_the_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write_collection(tmp_path / "topics")

    def names(**options: Any) -> list[str]:
        parsed = NightOptions.parse({"collection": spec, "set": ["first-stage=bm25"], **options})
        night = plan_night(parsed, date(2026, 1, 31), Site.from_environment())
        return [arm.name for arm in night.arms]

    assert names() == ["bm25", "cosine", "fusion", "perank", "llm-off"]
    for where in ("deployment", "mine"):
        text = f'{HEAD}[arms.{where}]\nranker = "first-stage"\n'
        (tmp_path / f"{where}.toml").write_text(text)
    monkeypatch.setenv("PERANK_ARMS", str(tmp_path / "deployment.toml"))
    assert names() == ["deployment"]
    assert names(arms_file=str(tmp_path / "mine.toml")) == ["mine"]


def test_two_names_of_one_configuration_are_refused(tmp_path: Path) -> None:
    spec = write_collection(tmp_path / "topics")
    twins = {"one": {"like": "perank", "window": 20}, "other": {"like": "perank"}}
    with pytest.raises(ConfigError, match="arms one and other are one configuration"):
        planned(spec, with_arms(twins))


def test_an_arm_without_its_residual_is_left_out(tmp_path: Path) -> None:
    spec = write_collection(tmp_path / "topics")
    assert "llm-off" not in [arm.name for arm in planned(spec, small_arms()).arms]
    with pytest.raises(ConfigError, match=r"No arm can be run.*llm-off.*no residual"):
        planned(spec, small_arms(), arms=["llm-off"])


def test_two_windows_stand_side_by_side(tmp_path: Path) -> None:
    spec = write_collection(tmp_path / "topics")
    arms = {
        "narrow": {"like": "perank", "window": 20, "first-stage": "dense"},
        "wide": {"like": "perank", "window": 100, "first-stage": "dense"},
    }
    run_night(planned(spec, with_arms(arms)))
    night = planned(spec, with_arms(arms), "2026-02-01")
    done = run_night(night, until="report")
    assert done["verdict"]["verdict"] == "identical"
    assert [arm["arm"] for arm in done["verdict"]["arms"]] == ["narrow", "wide"]
    assert len({arm.hash for arm in night.arms}) == 2
    assert len(done["retrieve"]) == len(done["embed"]) == 1  # both read the same ones

    of_each = "SELECT arm, {} FROM {} WHERE run_date = '2026-02-01' {} ORDER BY arm"
    windows = answer(of_each.format("config->>'window'", "runs", ""))
    assert windows == [("narrow", "20"), ("wide", "100")]
    ranked = answer(of_each.format("count(*)", "rankings", "GROUP BY arm"))
    assert ranked == [("narrow", 200), ("wide", 200)]
    steps = dict(answer(of_each.format("decode_steps", "efficiency", "AND stage = 'rerank'")))
    assert steps["wide"] == 5 * 39  # one window over all 40 candidates
    assert steps["narrow"] == 5 * 3 * 19
    page = (Settings.from_environment().reports / done["report"]).read_text()
    assert all(f"</span> {arm}</th>" in page for arm in arms)


def test_arms_of_other_first_stages_and_depths_share_a_night(tmp_path: Path) -> None:
    run = [(f"q-{topic}", f"{topic}-{i}", 9.0 - i) for topic in TOPICS for i in range(3)]
    spec = write_collection(tmp_path / "topics", run=run)
    arms = {
        "dense": {"like": "bm25", "first-stage": "dense"},
        "given": {"like": "bm25", "first-stage": "given"},
        "cut": {"like": "cosine", "first-stage": "dense", "depth": 7},
        "perank": {"like": "perank", "first-stage": "hybrid", "depth": 11},
        "fusion": {"like": "fusion", "first-stage": "given", "depth": 2},
    }
    night = planned(spec, with_arms(arms, depth=30), shards=3)
    done = run_night(night)
    assert len(done["retrieve"]) == len(night.first_stages) == 3
    assert len(done["index"]) == len(done["embed"]) == 1
    # The third check of a night's quality held: every arm ranks its candidates, down to its depth.
    counts = "SELECT arm, count(*) FROM rankings GROUP BY ALL ORDER BY ALL"
    each = {"cut": 7, "dense": 30, "fusion": 2, "given": 3, "perank": 11}
    assert answer(counts) == [(arm, n * len(TOPICS)) for arm, n in each.items()]
    deepest = "SELECT max(first_stage_rank) FROM rankings WHERE arm = 'cut'"
    assert answer(deepest) == [(7,)]
    kinds = """SELECT arm, config->>'$."first_stage.kind"', config->>'depth' FROM runs ORDER BY 1"""
    assert answer(kinds) == [
        ("cut", "dense", "7"),
        ("dense", "dense", "30"),
        ("fusion", "given", "2"),
        ("given", "given", "30"),
        ("perank", "hybrid", "11"),
    ]
    embedded = "SELECT DISTINCT arm FROM efficiency WHERE stage = 'embed' ORDER BY 1"
    assert [arm for (arm,) in answer(embedded)] == ["cut", "dense", "fusion", "perank"]


def test_an_arm_that_is_renamed_is_ranked_as_before_and_listed_by_its_new_name(
    tmp_path: Path,
) -> None:
    spec = write_collection(tmp_path / "topics")
    before = run_night(planned(spec, with_arms({"one": {"like": "bm25"}})))
    after = run_night(planned(spec, with_arms({"another": {"like": "bm25"}})))
    assert after["rerank"] == before["rerank"]
    assert answer("SELECT arm FROM runs") == [("another",)]
    assert answer("SELECT DISTINCT arm FROM rankings") == [("another",)]


def test_first_stages_are_one_where_only_their_names_differ(tmp_path: Path) -> None:
    spec = write_collection(tmp_path / "topics")
    small = small_arms()
    stages = small.tables[FIRST_STAGES]
    file = ArmsFile.of(
        {
            **small.tables,
            FIRST_STAGES: {**stages, "lexical": stages["bm25"]},
            ARMS: {
                "bm25": {"ranker": "first-stage"},
                "cosine": {**small.tables[ARMS]["cosine"], "first-stage": "lexical"},
            },
        }
    )
    assert len(planned(spec, file).first_stages) == 1


def test_a_run_that_no_arm_begins_with_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = [("q-" + topic, f"{topic}-0", 9.0) for topic in TOPICS]
    spec = write_collection(tmp_path / "topics", run=run)
    planned(spec, with_arms({"one": {"like": "bm25", "first-stage": "given"}}))
    assert "brings" not in caplog.text
    planned(spec, with_arms({"one": {"like": "bm25"}}))
    assert (
        "no arm begins with the run that the collection brings; --set first-stage=given"
        in caplog.text
    )
