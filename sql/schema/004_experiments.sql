-- Results of experiments, apart from those of nights: a cell is filed under its experiment and
-- the date it was run for, and takes no part in verdicts.

CREATE TABLE experiments (
    experiment VARCHAR NOT NULL,
    run_date DATE NOT NULL,
    status VARCHAR NOT NULL CHECK (status IN ('complete', 'incomplete')),
    question VARCHAR NOT NULL,
    baseline VARCHAR NOT NULL,
    cells INTEGER NOT NULL CHECK (cells > 0),
    missing_cells INTEGER NOT NULL CHECK (missing_cells BETWEEN 0 AND cells),
    fingerprint VARCHAR NOT NULL,
    config VARCHAR NOT NULL,
    concluded_at TIMESTAMP NOT NULL,
    PRIMARY KEY (experiment, run_date)
);

CREATE TABLE experiment_cells (
    experiment VARCHAR NOT NULL,
    run_date DATE NOT NULL,
    cell_hash VARCHAR NOT NULL,
    collection VARCHAR NOT NULL,
    cell VARCHAR NOT NULL,
    variant VARCHAR NOT NULL,
    arm VARCHAR NOT NULL,
    status VARCHAR NOT NULL CHECK (status IN ('complete', 'incomplete', 'missing')),
    reason VARCHAR,
    options VARCHAR NOT NULL,
    arm_hash VARCHAR,
    config VARCHAR,
    ranking_hash VARCHAR,
    snapshot VARCHAR,
    passages BIGINT,
    queries BIGINT,
    judged_queries BIGINT,
    unranked_queries BIGINT,
    malformed_queries BIGINT,
    bits_a_passage BIGINT,
    device VARCHAR,
    seconds DOUBLE,
    load_seconds DOUBLE,
    tokens_in BIGINT,
    decode_steps BIGINT,
    forward_passes BIGINT,
    flops BIGINT,
    numbers_repaired BIGINT,
    peak_memory_bytes BIGINT,
    PRIMARY KEY (experiment, run_date, cell_hash)
);

CREATE TABLE experiment_measures (
    experiment VARCHAR NOT NULL,
    run_date DATE NOT NULL,
    cell_hash VARCHAR NOT NULL,
    measure VARCHAR NOT NULL,
    value DOUBLE NOT NULL CHECK (value BETWEEN 0 AND 1),
    queries BIGINT NOT NULL CHECK (queries > 0),
    PRIMARY KEY (experiment, run_date, cell_hash, measure)
);

CREATE TABLE experiment_query_measures (
    experiment VARCHAR NOT NULL,
    run_date DATE NOT NULL,
    cell_hash VARCHAR NOT NULL,
    query_id VARCHAR NOT NULL,
    measure VARCHAR NOT NULL,
    value DOUBLE NOT NULL CHECK (value BETWEEN 0 AND 1),
    PRIMARY KEY (experiment, run_date, cell_hash, query_id, measure)
);

CREATE TABLE experiment_rankings (
    experiment VARCHAR NOT NULL,
    run_date DATE NOT NULL,
    cell_hash VARCHAR NOT NULL,
    query_id VARCHAR NOT NULL,
    passage_id VARCHAR NOT NULL,
    rank INTEGER NOT NULL CHECK (rank >= 1),
    score DOUBLE NOT NULL,
    first_stage_rank INTEGER NOT NULL CHECK (first_stage_rank >= 1),
    PRIMARY KEY (experiment, run_date, cell_hash, query_id, rank)
);

CREATE TABLE experiment_tests (
    experiment VARCHAR NOT NULL,
    run_date DATE NOT NULL,
    collection VARCHAR NOT NULL,
    variant VARCHAR NOT NULL,
    baseline VARCHAR NOT NULL,
    measure VARCHAR NOT NULL,
    queries INTEGER NOT NULL,
    value DOUBLE NOT NULL,
    baseline_value DOUBLE NOT NULL,
    delta DOUBLE NOT NULL,
    ci_low DOUBLE NOT NULL,
    ci_high DOUBLE NOT NULL,
    effect_size DOUBLE,
    better INTEGER NOT NULL,
    worse INTEGER NOT NULL,
    p DOUBLE NOT NULL CHECK (p BETWEEN 0 AND 1),
    p_holm DOUBLE NOT NULL CHECK (p_holm BETWEEN 0 AND 1),
    tests INTEGER NOT NULL,
    PRIMARY KEY (experiment, run_date, collection, variant, measure)
);

CREATE TABLE experiment_provenance (
    experiment VARCHAR NOT NULL,
    run_date DATE NOT NULL,
    key VARCHAR NOT NULL,
    value VARCHAR NOT NULL,
    PRIMARY KEY (experiment, run_date, key)
);
