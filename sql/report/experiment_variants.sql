-- Every variant of one run of an experiment on each of its collections, in the order of its grid:
-- what it costs, its values by query, the mean over its cells, and its tests by measure.
WITH means AS (
    SELECT collection, variant, min(value) AS lowest, max(value) AS highest
    FROM measures
    INNER JOIN experiment_cells USING (series, run_date, collection, arm_hash)
    WHERE series = $series AND run_date = $run_date AND measure = 'nDCG@10'
    GROUP BY ALL
),
by_query AS (
    SELECT collection, variant, measure, query_id, avg(value) AS value
    FROM query_measures
    INNER JOIN experiment_cells USING (series, run_date, collection, arm_hash)
    WHERE series = $series AND run_date = $run_date
    GROUP BY ALL
),
by_measure AS (
    SELECT collection, variant, measure, list(value ORDER BY query_id) AS values
    FROM by_query
    GROUP BY ALL
),
variant_values AS (
    SELECT collection, variant, map(list(measure ORDER BY measure), list(values ORDER BY measure)) AS values
    FROM by_measure
    GROUP BY ALL
),
variant_tests AS (
    SELECT collection, arm AS variant,
        map(list(measure ORDER BY measure), list(comparisons ORDER BY measure)) AS tests
    FROM comparisons
    WHERE series = $series AND run_date = $run_date AND against_kind = 'baseline'
    GROUP BY ALL
)
SELECT
    costs.collection,
    row_number() OVER (PARTITION BY costs.collection ORDER BY costs.place) AS number,
    costs.variant AS name,
    costs.cells,
    means.lowest,
    means.highest,
    map {
        'seconds': costs.seconds_a_query,
        'tokens': costs.tokens_a_query,
        'flops': costs.flops_a_query,
        'bits': costs.bits_a_passage,
        'repaired': costs.numbers_repaired_a_query
    } AS costs,
    variant_values.values,
    coalesce(variant_tests.tests, map {}) AS tests
FROM experiment_costs AS costs
INNER JOIN means USING (collection, variant)
INNER JOIN variant_values USING (collection, variant)
LEFT JOIN variant_tests USING (collection, variant)
WHERE costs.series = $series AND costs.run_date = $run_date
ORDER BY costs.place;
