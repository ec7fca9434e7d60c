-- In the nights, each query's value beside the one that the same configuration got on its date before.
-- A query that is new, or gone, since then has no delta. Each value is by its own night's judgements;
-- what verdicts rest on is by the same ones: worst_queries.
CREATE OR REPLACE VIEW query_delta AS
WITH steps AS (
    SELECT
        run_date,
        collection,
        arm_hash,
        lag(run_date) OVER (PARTITION BY collection, arm_hash ORDER BY run_date) AS previous_date
    FROM runs
    WHERE series = 'nightly'
)
SELECT
    now.run_date,
    now.collection,
    now.arm,
    now.arm_hash,
    now.query_id,
    now.measure,
    now.value,
    steps.previous_date,
    before.value AS previous_value,
    now.value - before.value AS delta
FROM query_measures AS now
INNER JOIN steps USING (run_date, collection, arm_hash)
LEFT JOIN query_measures AS before
    ON before.series = now.series
    AND before.run_date = steps.previous_date
    AND before.collection = now.collection
    AND before.arm_hash = now.arm_hash
    AND before.query_id = now.query_id
    AND before.measure = now.measure
WHERE now.series = 'nightly';
