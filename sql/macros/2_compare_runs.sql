-- Two nights or results side by side, measure by measure, over the queries both have:
-- compare_runs('2026-01-01', '2026-01-02') arm by arm, compare_runs('2026-01-01/bm25',
-- '2026-01-01/perank') the two that are named. Each is by the judgements of its own night; by the
-- same ones, and with the test of significance: `perank check`.
CREATE OR REPLACE MACRO compare_runs(a, b) AS TABLE
WITH pairs AS (
    SELECT
        before.collection,
        before.series AS a_series,
        before.run_date AS a_date,
        before.arm AS a_arm,
        before.arm_hash AS a_hash,
        now.series AS b_series,
        now.run_date AS b_date,
        now.arm AS b_arm,
        now.arm_hash AS b_hash
    FROM runs_named(a) AS before
    INNER JOIN runs_named(b) AS now
        ON now.collection = before.collection
        AND (
            now.arm = before.arm
            OR (split_part(a, '/', 2) <> '' AND split_part(b, '/', 2) <> '')
        )
)
SELECT
    pairs.*,
    before.measure,
    count(*) AS queries,
    avg(before.value) AS a_value,
    avg(now.value) AS b_value,
    avg(now.value - before.value) AS delta,
    count(*) FILTER (now.value > before.value) AS better,
    count(*) FILTER (now.value < before.value) AS worse
FROM pairs
INNER JOIN query_measures AS before
    ON before.series = a_series AND before.run_date = a_date AND before.collection = pairs.collection
    AND before.arm_hash = a_hash
INNER JOIN query_measures AS now
    ON now.series = b_series AND now.run_date = b_date AND now.collection = pairs.collection
    AND now.arm_hash = b_hash
    AND now.query_id = before.query_id AND now.measure = before.measure
GROUP BY ALL
ORDER BY ALL;
