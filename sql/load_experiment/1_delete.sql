-- Remove what only an experiment has, of the run that is about to be inserted.

DELETE FROM experiments USING incoming_experiments
WHERE experiments.series = incoming_experiments.series
  AND experiments.run_date = incoming_experiments.run_date;

DELETE FROM experiment_cells USING incoming_experiments
WHERE experiment_cells.series = incoming_experiments.series
  AND experiment_cells.run_date = incoming_experiments.run_date;

DELETE FROM comparisons USING incoming_experiments
WHERE comparisons.series = incoming_experiments.series
  AND comparisons.run_date = incoming_experiments.run_date;
