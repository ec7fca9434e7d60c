-- The cells of one run of an experiment, in the order of its grid.
SELECT cells.*, runs.passages, runs.judged_queries, runs.config ->> 'checkpoint' AS checkpoint
FROM experiment_cells AS cells
LEFT JOIN runs USING (series, run_date, collection, arm_hash)
WHERE cells.series = $series AND cells.run_date = $run_date
ORDER BY cells.place;
