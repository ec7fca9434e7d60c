-- What a night is judged by and judged to be. `baselines` are acts of people, appended and
-- never changed; the other tables are derived from them and from the results, and made again
-- for a loaded date and all later ones, so that the order of loading does not matter.

DROP VIEW IF EXISTS verdicts;

-- From best to worst: max(verdict) is the word for several.
CREATE TYPE verdict AS ENUM (
    'first', 'identical', 'drift', 'acknowledged', 'improvement', 'suspect', 'incomplete',
    'regression'
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

CREATE TABLE verdicts (
    run_date DATE NOT NULL,
    collection VARCHAR NOT NULL,
    arm VARCHAR NOT NULL,
    arm_hash VARCHAR NOT NULL,
    measure VARCHAR NOT NULL,
    verdict verdict NOT NULL,
    reason VARCHAR CHECK (
        reason IN ('band', 'trend', 'standing', 'unranked', 'coverage')
    ),
    baseline_kind VARCHAR CHECK (baseline_kind IN ('accepted', 'first night')),
    baseline_date DATE CHECK (baseline_date < run_date),
    baseline_arm_hash VARCHAR,
    value DOUBLE,
    baseline_value DOUBLE,
    delta DOUBLE,
    ci_low DOUBLE,
    ci_high DOUBLE,
    band_low DOUBLE,
    band_high DOUBLE,
    nights INTEGER NOT NULL,
    trend_p DOUBLE CHECK (trend_p BETWEEN 0 AND 1),
    p DOUBLE CHECK (p BETWEEN 0 AND 1),
    p_holm DOUBLE CHECK (p_holm BETWEEN 0 AND 1),
    tests INTEGER NOT NULL,
    queries INTEGER NOT NULL,
    better INTEGER NOT NULL,
    worse INTEGER NOT NULL,
    PRIMARY KEY (run_date, collection, arm_hash, measure)
);

CREATE TABLE cost_verdicts (
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
    PRIMARY KEY (run_date, collection, arm_hash, quantity)
);

CREATE TABLE drift (
    run_date DATE NOT NULL,
    collection VARCHAR NOT NULL,
    arm VARCHAR NOT NULL,
    arm_hash VARCHAR NOT NULL,
    query_id VARCHAR NOT NULL,
    baseline_date DATE NOT NULL CHECK (baseline_date < run_date),
    baseline_arm_hash VARCHAR NOT NULL,
    changed_top_10 BOOLEAN NOT NULL,
    overlap_10 DOUBLE NOT NULL CHECK (overlap_10 BETWEEN 0 AND 1),
    rbo DOUBLE NOT NULL CHECK (rbo BETWEEN -1e-9 AND 1 + 1e-9),
    kendall_tau DOUBLE CHECK (kendall_tau BETWEEN -1 - 1e-9 AND 1 + 1e-9),
    largest_move INTEGER NOT NULL,
    largest_move_passage VARCHAR,
    score_shift DOUBLE NOT NULL CHECK (score_shift >= 0),
    PRIMARY KEY (run_date, collection, arm_hash, query_id)
);

-- What derived the rows above; where it is not what would derive them now, all are made again.
CREATE TABLE derivation (version VARCHAR NOT NULL);
