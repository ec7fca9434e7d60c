-- What every query got in each variant: the mean over its cells.
SELECT collection, variant, measure, query_id, avg(value) AS value
FROM experiment_query_measures
INNER JOIN experiment_cells USING (experiment, run_date, cell_hash)
WHERE experiment = $experiment AND run_date = $run_date
GROUP BY ALL
ORDER BY ALL;
