-- Every variant of the newest run of each experiment: its mean, what it costs, and its test.
-- A variant's value is the mean over its cells, which differ in a seed alone.
CREATE OR REPLACE VIEW experiment_variants AS
WITH newest AS (
    SELECT experiment, max(run_date) AS run_date FROM experiments GROUP BY experiment
),
means AS (
    SELECT experiment, run_date, collection, variant, measure, avg(value) AS value,
        min(value) AS lowest_cell, max(value) AS highest_cell
    FROM experiment_measures
    INNER JOIN experiment_cells USING (experiment, run_date, cell_hash)
    GROUP BY ALL
),
costs AS (
    SELECT experiment, run_date, collection, variant, count(*) AS cells,
        avg((seconds - load_seconds) / queries) AS seconds_a_query,
        avg((tokens_in + decode_steps) / queries) AS tokens_a_query,
        avg(flops / queries) AS flops_a_query,
        avg(malformed_queries / queries) AS malformed,
        any_value(bits_a_passage) AS bits_a_passage
    FROM experiment_cells
    WHERE status <> 'missing'
    GROUP BY ALL
)
SELECT means.experiment, means.run_date, means.collection, means.variant, means.measure,
    means.value, means.lowest_cell, means.highest_cell, tests.delta, tests.ci_low, tests.ci_high,
    tests.effect_size, tests.p_holm, costs.cells, costs.seconds_a_query, costs.tokens_a_query,
    costs.flops_a_query, costs.malformed, costs.bits_a_passage
FROM means
INNER JOIN newest USING (experiment, run_date)
INNER JOIN costs USING (experiment, run_date, collection, variant)
LEFT JOIN experiment_tests AS tests USING (experiment, run_date, collection, variant, measure);
