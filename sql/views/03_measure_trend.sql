-- Every night's mean by date, beside the same configuration's mean of the date before it.
CREATE OR REPLACE VIEW measure_trend AS
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
WHERE series = 'nightly'
WINDOW earlier AS (PARTITION BY collection, arm_hash, measure ORDER BY run_date)
ORDER BY collection, arm, arm_hash, measure, run_date;
