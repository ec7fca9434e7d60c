-- What computed one run of an experiment.
SELECT key, value FROM experiment_provenance
WHERE experiment = $experiment AND run_date = $run_date
ORDER BY key;
