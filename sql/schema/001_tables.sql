-- The result tables, the same columns as schemas.RESULT_TABLES in Parquet.

CREATE TABLE runs (
    series VARCHAR NOT NULL,
    run_date DATE NOT NULL,
    collection VARCHAR NOT NULL,
    arm VARCHAR NOT NULL,
    arm_hash VARCHAR NOT NULL,
    status VARCHAR NOT NULL CHECK (status IN ('complete', 'incomplete')),
    ranking_hash VARCHAR NOT NULL,
    snapshot VARCHAR NOT NULL,
    snapshot_date DATE,
    fingerprint VARCHAR NOT NULL,
    passages BIGINT NOT NULL CHECK (passages > 0),
    queries BIGINT NOT NULL CHECK (queries > 0),
    collection_queries BIGINT NOT NULL CHECK (collection_queries >= queries),
    judged_queries BIGINT NOT NULL CHECK (judged_queries <= queries),
    unranked_queries BIGINT NOT NULL CHECK (unranked_queries <= queries),
    unranked_reason VARCHAR,
    cut_queries BIGINT NOT NULL,
    stale_judgements BIGINT NOT NULL,
    unknown_judgements BIGINT NOT NULL,
    top_10_results BIGINT NOT NULL,
    top_10_unjudged BIGINT NOT NULL CHECK (top_10_unjudged <= top_10_results),
    config VARCHAR NOT NULL,
    evaluated_at TIMESTAMP NOT NULL,
    PRIMARY KEY (series, run_date, collection, arm_hash)
);

CREATE TABLE measures (
    series VARCHAR NOT NULL,
    run_date DATE NOT NULL,
    collection VARCHAR NOT NULL,
    arm VARCHAR NOT NULL,
    arm_hash VARCHAR NOT NULL,
    measure VARCHAR NOT NULL,
    value DOUBLE NOT NULL CHECK (value BETWEEN 0 AND 1),
    queries BIGINT NOT NULL CHECK (queries > 0),
    PRIMARY KEY (series, run_date, collection, arm_hash, measure)
);

CREATE TABLE query_measures (
    series VARCHAR NOT NULL,
    run_date DATE NOT NULL,
    collection VARCHAR NOT NULL,
    arm VARCHAR NOT NULL,
    arm_hash VARCHAR NOT NULL,
    query_id VARCHAR NOT NULL,
    measure VARCHAR NOT NULL,
    value DOUBLE NOT NULL CHECK (value BETWEEN 0 AND 1),
    PRIMARY KEY (series, run_date, collection, arm_hash, query_id, measure)
);

CREATE TABLE rankings (
    series VARCHAR NOT NULL,
    run_date DATE NOT NULL,
    collection VARCHAR NOT NULL,
    arm VARCHAR NOT NULL,
    arm_hash VARCHAR NOT NULL,
    query_id VARCHAR NOT NULL,
    passage_id VARCHAR NOT NULL,
    rank INTEGER NOT NULL CHECK (rank >= 1),
    score DOUBLE NOT NULL,
    first_stage_rank INTEGER NOT NULL CHECK (first_stage_rank >= 1),
    PRIMARY KEY (series, run_date, collection, arm_hash, query_id, rank)
);

CREATE TABLE efficiency (
    series VARCHAR NOT NULL,
    run_date DATE NOT NULL,
    collection VARCHAR NOT NULL,
    arm VARCHAR NOT NULL,
    arm_hash VARCHAR NOT NULL,
    stage VARCHAR NOT NULL,
    device VARCHAR NOT NULL,
    seconds DOUBLE NOT NULL CHECK (seconds >= 0),
    items BIGINT NOT NULL,
    items_per_second DOUBLE,
    tokens_in BIGINT NOT NULL,
    decode_steps BIGINT NOT NULL,
    peak_memory_bytes BIGINT NOT NULL,
    numbers_repaired BIGINT NOT NULL,
    forward_passes BIGINT NOT NULL,
    flops BIGINT NOT NULL,
    load_seconds DOUBLE NOT NULL,
    tokenise_seconds DOUBLE NOT NULL,
    prefill_seconds DOUBLE NOT NULL,
    decode_seconds DOUBLE NOT NULL,
    PRIMARY KEY (series, run_date, collection, arm_hash, stage)
);

CREATE TABLE provenance (
    series VARCHAR NOT NULL,
    run_date DATE NOT NULL,
    collection VARCHAR NOT NULL,
    arm VARCHAR NOT NULL,
    arm_hash VARCHAR NOT NULL,
    key VARCHAR NOT NULL,
    value VARCHAR NOT NULL,
    PRIMARY KEY (series, run_date, collection, arm_hash, key)
);

CREATE TABLE symptoms (
    series VARCHAR NOT NULL,
    run_date DATE NOT NULL,
    collection VARCHAR NOT NULL,
    arm VARCHAR NOT NULL,
    arm_hash VARCHAR NOT NULL,
    symptom VARCHAR NOT NULL,
    shown BIGINT NOT NULL CHECK (shown <= looked_at),
    looked_at BIGINT NOT NULL,
    expected BOOLEAN NOT NULL,
    other_arm VARCHAR,
    PRIMARY KEY (series, run_date, collection, arm_hash, symptom)
);

-- What results are of, once for each snapshot that any of them read.

CREATE TABLE queries (
    collection VARCHAR NOT NULL,
    snapshot VARCHAR NOT NULL,
    query_id VARCHAR NOT NULL,
    text VARCHAR NOT NULL,
    is_passage BOOLEAN NOT NULL,
    tags VARCHAR[],
    PRIMARY KEY (collection, snapshot, query_id)
);

CREATE TABLE judgements (
    collection VARCHAR NOT NULL,
    snapshot VARCHAR NOT NULL,
    query_id VARCHAR NOT NULL,
    passage_id VARCHAR NOT NULL,
    relevance INTEGER NOT NULL,
    PRIMARY KEY (collection, snapshot, query_id, passage_id)
);

CREATE TABLE passages (
    collection VARCHAR NOT NULL,
    snapshot VARCHAR NOT NULL,
    passage_id VARCHAR NOT NULL,
    title VARCHAR,
    text VARCHAR NOT NULL,
    PRIMARY KEY (collection, snapshot, passage_id)
);

-- What a night is judged by and judged to be. `baselines` are acts of people, appended and
-- never changed; the other tables are derived from them and from the results, and made again
-- for a loaded date and all later ones, so that the order of loading does not matter.

-- From best to worst: max(verdict) is the word for several.
CREATE TYPE verdict AS ENUM (
    'first', 'identical', 'drift', 'unusual', 'acknowledged', 'improvement', 'suspect',
    'incomplete', 'regression'
);

CREATE TABLE baselines (
    baseline_id VARCHAR NOT NULL PRIMARY KEY,
    collection VARCHAR NOT NULL,
    arm VARCHAR,
    run_date DATE NOT NULL,
    as_of DATE NOT NULL CHECK (as_of >= run_date),
    name VARCHAR NOT NULL CHECK (name <> ''),
    reason VARCHAR NOT NULL CHECK (reason <> ''),
    accepted_at TIMESTAMP NOT NULL
);

CREATE TABLE comparisons (
    series VARCHAR NOT NULL,
    run_date DATE NOT NULL,
    collection VARCHAR NOT NULL,
    arm VARCHAR NOT NULL,
    arm_hash VARCHAR NOT NULL,
    measure VARCHAR NOT NULL,
    against_kind VARCHAR NOT NULL,
    against_date DATE NOT NULL,
    against_arm VARCHAR NOT NULL,
    against_arm_hash VARCHAR NOT NULL,
    queries INTEGER NOT NULL CHECK (queries > 0),
    value DOUBLE NOT NULL,
    against_value DOUBLE NOT NULL,
    delta DOUBLE NOT NULL,
    ci_low DOUBLE NOT NULL,
    ci_high DOUBLE NOT NULL,
    better INTEGER NOT NULL,
    worse INTEGER NOT NULL,
    p DOUBLE CHECK (p BETWEEN 0 AND 1),
    p_holm DOUBLE CHECK (p_holm BETWEEN 0 AND 1),
    tests INTEGER NOT NULL,
    family VARCHAR NOT NULL,
    PRIMARY KEY (series, run_date, collection, arm_hash, measure, against_date, against_arm_hash)
);

CREATE TABLE verdicts (
    series VARCHAR NOT NULL,
    run_date DATE NOT NULL,
    collection VARCHAR NOT NULL,
    arm VARCHAR NOT NULL,
    arm_hash VARCHAR NOT NULL,
    measure VARCHAR NOT NULL,
    verdict verdict NOT NULL,
    reason VARCHAR CHECK (
        reason IN (
            'band', 'trend', 'standing', 'symptom', 'judgements', 'unranked', 'unmeasured',
            'coverage'
        )
    ),
    against_date DATE CHECK (against_date < run_date),
    against_arm_hash VARCHAR,
    band_low DOUBLE,
    band_high DOUBLE,
    nights INTEGER NOT NULL,
    trend_p DOUBLE CHECK (trend_p BETWEEN 0 AND 1),
    judgements_delta DOUBLE,
    PRIMARY KEY (series, run_date, collection, arm_hash, measure)
);

CREATE TABLE cost_verdicts (
    series VARCHAR NOT NULL,
    run_date DATE NOT NULL,
    collection VARCHAR NOT NULL,
    arm VARCHAR NOT NULL,
    arm_hash VARCHAR NOT NULL,
    quantity VARCHAR NOT NULL CHECK (quantity IN ('queries/s', 'tokens/query', 'peak memory')),
    verdict VARCHAR NOT NULL CHECK (
        verdict IN ('first', 'usual', 'slower', 'faster', 'costlier', 'cheaper')
    ),
    device VARCHAR NOT NULL,
    value DOUBLE NOT NULL CHECK (value > 0),
    band_low DOUBLE,
    band_high DOUBLE,
    nights INTEGER NOT NULL,
    PRIMARY KEY (series, run_date, collection, arm_hash, quantity)
);

CREATE TABLE drift (
    series VARCHAR NOT NULL,
    run_date DATE NOT NULL,
    collection VARCHAR NOT NULL,
    arm VARCHAR NOT NULL,
    arm_hash VARCHAR NOT NULL,
    query_id VARCHAR NOT NULL,
    against_date DATE NOT NULL CHECK (against_date < run_date),
    against_arm_hash VARCHAR NOT NULL,
    changed_top_10 BOOLEAN NOT NULL,
    overlap_10 DOUBLE NOT NULL CHECK (overlap_10 BETWEEN 0 AND 1),
    rbo DOUBLE NOT NULL CHECK (rbo BETWEEN -1e-9 AND 1 + 1e-9),
    kendall_tau DOUBLE CHECK (kendall_tau BETWEEN -1 - 1e-9 AND 1 + 1e-9),
    largest_move INTEGER NOT NULL,
    largest_move_passage VARCHAR,
    score_shift DOUBLE NOT NULL CHECK (score_shift >= 0),
    PRIMARY KEY (series, run_date, collection, arm_hash, query_id)
);

CREATE TABLE rescored (
    series VARCHAR NOT NULL,
    run_date DATE NOT NULL,
    collection VARCHAR NOT NULL,
    arm VARCHAR NOT NULL,
    arm_hash VARCHAR NOT NULL,
    query_id VARCHAR NOT NULL,
    measure VARCHAR NOT NULL,
    against_date DATE NOT NULL CHECK (against_date < run_date),
    against_arm_hash VARCHAR NOT NULL,
    value DOUBLE NOT NULL CHECK (value BETWEEN 0 AND 1),
    PRIMARY KEY (series, run_date, collection, arm_hash, query_id, measure)
);

-- What derived the rows above; where it is not what would derive them now, all are made again.
CREATE TABLE derivation (version VARCHAR NOT NULL);

-- What only an experiment has: its question and the cells of its grid. Results are rows of the
-- tables above, with the experiment's name as their series; its tests are rows of `comparisons`.

CREATE TABLE experiments (
    series VARCHAR NOT NULL CHECK (series <> 'nightly'),
    run_date DATE NOT NULL,
    question VARCHAR NOT NULL,
    baseline VARCHAR NOT NULL,
    fingerprint VARCHAR NOT NULL,
    config VARCHAR NOT NULL,
    concluded_at TIMESTAMP NOT NULL,
    PRIMARY KEY (series, run_date)
);

CREATE TABLE experiment_cells (
    series VARCHAR NOT NULL,
    run_date DATE NOT NULL,
    collection VARCHAR NOT NULL,
    arm VARCHAR NOT NULL,
    arm_hash VARCHAR,
    variant VARCHAR NOT NULL,
    place INTEGER NOT NULL,
    reason VARCHAR,
    ranked_at TIMESTAMP,
    PRIMARY KEY (series, run_date, collection, arm)
);
