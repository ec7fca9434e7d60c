-- Every night's mean by date, beside the same configuration's mean of the date before it; nights
-- limited to a few queries are left out.
CREATE OR REPLACE VIEW means_by_date AS
SELECT
    run_date,
    collection,
    arm,
    arm_hash,
    measure,
    value,
    lag(run_date) OVER earlier AS previous_date,
    lag(value) OVER earlier AS previous_value,
    value - lag(value) OVER earlier AS delta
FROM measures
SEMI JOIN run_summary
    ON run_summary.series = measures.series AND run_summary.run_date = measures.run_date
    AND run_summary.collection = measures.collection AND run_summary.arm_hash = measures.arm_hash
    AND run_summary.queries = run_summary.collection_queries
WHERE series = 'nightly'
WINDOW earlier AS (PARTITION BY collection, arm_hash, measure ORDER BY run_date)
ORDER BY collection, arm, arm_hash, measure, run_date;
