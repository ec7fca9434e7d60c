-- What every variant of every run of an experiment costs: means over its cells and their queries.
CREATE OR REPLACE VIEW experiment_costs AS
WITH vectors AS (
    SELECT series, run_date, collection, arm_hash, value :: BIGINT AS bits_a_passage
    FROM provenance
    WHERE key = 'embeddings.bits_a_passage'
)
SELECT
    series,
    run_date,
    collection,
    cells.variant,
    min(cells.place) AS place,
    count(*) AS cells,
    avg((seconds - load_seconds) / items) AS seconds_a_query,
    avg((tokens_in + decode_steps) / items) AS tokens_a_query,
    avg(flops / items) AS flops_a_query,
    avg(numbers_repaired / items) AS numbers_repaired_a_query,
    any_value(bits_a_passage) AS bits_a_passage
FROM experiment_cells AS cells
INNER JOIN efficiency USING (series, run_date, collection, arm_hash)
LEFT JOIN vectors USING (series, run_date, collection, arm_hash)
WHERE efficiency.stage = 'rerank'
GROUP BY ALL;
