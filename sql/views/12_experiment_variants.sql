-- Every variant of the newest run of each experiment: its mean, what it costs, and its test.
-- A variant's value is the mean over its cells, which differ in a seed alone.
CREATE OR REPLACE VIEW experiment_variants AS
WITH newest AS (
    SELECT series, max(run_date) AS run_date FROM experiments GROUP BY series
),
means AS (
    SELECT
        series,
        run_date,
        collection,
        variant,
        measure,
        avg(value) AS value,
        min(value) AS lowest_cell,
        max(value) AS highest_cell
    FROM measures
    INNER JOIN experiment_cells USING (series, run_date, collection, arm_hash)
    GROUP BY ALL
)
SELECT
    means.*,
    tests.delta,
    tests.ci_low,
    tests.ci_high,
    tests.p_holm,
    costs.* EXCLUDE (series, run_date, collection, variant)
FROM means
INNER JOIN newest USING (series, run_date)
INNER JOIN experiment_costs AS costs USING (series, run_date, collection, variant)
LEFT JOIN comparisons AS tests
    ON tests.series = means.series
    AND tests.run_date = means.run_date
    AND tests.collection = means.collection
    AND tests.arm = means.variant
    AND tests.measure = means.measure
    AND tests.against_kind = 'baseline';
