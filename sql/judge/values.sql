-- Each query's value of every measure on some dates; the baseline's by the judgements of a run
-- count as a run that is named by both.
SELECT
    concat_ws(' ', run_date, arm_hash, against_date, against_arm_hash) AS run,
    measure,
    query_id,
    value
FROM (FROM query_measures UNION ALL BY NAME FROM rescored)
WHERE series = $series AND collection = $collection AND run_date IN (SELECT unnest($dates));
