-- The n queries that lost most nDCG@10 against what their result was held against, by the same
-- judgements, with their texts, and, in the nights, how far their rankings moved:
-- worst_queries('2026-01-31/perank', 10).
CREATE OR REPLACE MACRO worst_queries(run, n) AS TABLE
SELECT
    now.series,
    now.run_date,
    now.collection,
    now.arm,
    now.query_id,
    queries.text AS query,
    coalesce(rescored.value, before.value) AS against_value,
    now.value,
    now.value - coalesce(rescored.value, before.value) AS delta,
    drift.overlap_10,
    drift.kendall_tau,
    drift.largest_move,
    drift.largest_move_passage,
    held.against_date
FROM runs_named(run) AS named
INNER JOIN comparisons AS held USING (series, run_date, collection, arm_hash)
INNER JOIN query_measures AS now USING (series, run_date, collection, arm_hash, measure)
INNER JOIN runs USING (series, run_date, collection, arm_hash)
LEFT JOIN queries
    ON queries.collection = now.collection AND queries.snapshot = runs.snapshot
    AND queries.query_id = now.query_id
LEFT JOIN query_measures AS before
    ON before.series = now.series AND before.run_date = held.against_date
    AND before.collection = now.collection AND before.arm_hash = held.against_arm_hash
    AND before.query_id = now.query_id AND before.measure = now.measure
LEFT JOIN rescored
    ON rescored.series = now.series AND rescored.run_date = now.run_date
    AND rescored.collection = now.collection AND rescored.arm_hash = now.arm_hash
    AND rescored.query_id = now.query_id AND rescored.measure = now.measure
LEFT JOIN drift
    ON drift.series = now.series AND drift.run_date = now.run_date
    AND drift.collection = now.collection AND drift.arm_hash = now.arm_hash
    AND drift.query_id = now.query_id
WHERE now.measure = 'nDCG@10' AND coalesce(rescored.value, before.value) IS NOT NULL
-- Not `delta`, which would be the mean's, of `held`.
QUALIFY row_number() OVER (
    ORDER BY now.value - coalesce(rescored.value, before.value), drift.overlap_10, now.query_id, now.arm
) <= n
ORDER BY delta, drift.overlap_10, now.query_id, now.arm;
