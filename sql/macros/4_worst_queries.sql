-- The n queries that lost most nDCG@10 against the baseline their result was judged by, with
-- how far their rankings moved: worst_queries('2026-01-31/perank', 10).
CREATE OR REPLACE MACRO worst_queries(run, n) AS TABLE
SELECT
    now.run_date,
    now.collection,
    now.arm,
    now.query_id,
    before.value AS baseline_value,
    now.value,
    now.value - before.value AS delta,
    drift.overlap_10,
    drift.kendall_tau,
    drift.largest_move,
    drift.largest_move_passage,
    drift.baseline_date
FROM runs_named(run) AS named
INNER JOIN query_measures AS now USING (run_date, collection, arm_hash)
INNER JOIN drift
    ON drift.run_date = now.run_date AND drift.collection = now.collection
    AND drift.arm_hash = now.arm_hash AND drift.query_id = now.query_id
INNER JOIN query_measures AS before
    ON before.run_date = drift.baseline_date AND before.collection = now.collection
    AND before.arm_hash = drift.baseline_arm_hash AND before.query_id = now.query_id
    AND before.measure = now.measure
WHERE now.measure = 'nDCG@10'
QUALIFY row_number() OVER (ORDER BY delta, drift.overlap_10, now.query_id, now.arm) <= n
ORDER BY delta, drift.overlap_10, now.query_id, now.arm;
