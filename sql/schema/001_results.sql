-- The result tables, the same columns as schemas.RESULT_TABLES in Parquet.

CREATE TABLE runs (
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
    judged_queries BIGINT NOT NULL CHECK (judged_queries <= queries),
    unranked_queries BIGINT NOT NULL CHECK (unranked_queries <= queries),
    cut_queries BIGINT NOT NULL,
    stale_judgements BIGINT NOT NULL,
    unknown_judgements BIGINT NOT NULL,
    config VARCHAR NOT NULL,
    evaluated_at TIMESTAMP NOT NULL,
    PRIMARY KEY (run_date, collection, arm_hash)
);

CREATE TABLE measures (
    run_date DATE NOT NULL,
    collection VARCHAR NOT NULL,
    arm VARCHAR NOT NULL,
    arm_hash VARCHAR NOT NULL,
    measure VARCHAR NOT NULL,
    value DOUBLE NOT NULL CHECK (value BETWEEN 0 AND 1),
    queries BIGINT NOT NULL CHECK (queries > 0),
    PRIMARY KEY (run_date, collection, arm_hash, measure)
);

CREATE TABLE query_measures (
    run_date DATE NOT NULL,
    collection VARCHAR NOT NULL,
    arm VARCHAR NOT NULL,
    arm_hash VARCHAR NOT NULL,
    query_id VARCHAR NOT NULL,
    measure VARCHAR NOT NULL,
    value DOUBLE NOT NULL CHECK (value BETWEEN 0 AND 1),
    PRIMARY KEY (run_date, collection, arm_hash, query_id, measure)
);

CREATE TABLE rankings (
    run_date DATE NOT NULL,
    collection VARCHAR NOT NULL,
    arm VARCHAR NOT NULL,
    arm_hash VARCHAR NOT NULL,
    query_id VARCHAR NOT NULL,
    passage_id VARCHAR NOT NULL,
    rank INTEGER NOT NULL CHECK (rank >= 1),
    score DOUBLE NOT NULL,
    first_stage_rank INTEGER NOT NULL CHECK (first_stage_rank >= 1),
    PRIMARY KEY (run_date, collection, arm_hash, query_id, rank)
);

CREATE TABLE efficiency (
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
    PRIMARY KEY (run_date, collection, arm_hash, stage)
);

CREATE TABLE provenance (
    run_date DATE NOT NULL,
    collection VARCHAR NOT NULL,
    arm VARCHAR NOT NULL,
    arm_hash VARCHAR NOT NULL,
    key VARCHAR NOT NULL,
    value VARCHAR NOT NULL,
    PRIMARY KEY (run_date, collection, arm_hash, key)
);
