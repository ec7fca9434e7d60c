-- The cells of one run of an experiment, with the mean of every measure, as a map.
SELECT cells.*, measures.means
FROM experiment_cells AS cells
LEFT JOIN (
    SELECT cell_hash, map_from_entries(list((measure, value) ORDER BY measure)) AS means
    FROM experiment_measures
    WHERE experiment = $experiment AND run_date = $run_date
    GROUP BY cell_hash
) AS measures USING (cell_hash)
WHERE cells.experiment = $experiment AND cells.run_date = $run_date;
