-- Remove every row of the experiments that are about to be inserted.

DELETE FROM experiment_cells USING incoming_experiments
WHERE experiment_cells.experiment = incoming_experiments.experiment
  AND experiment_cells.run_date = incoming_experiments.run_date;

DELETE FROM experiment_measures USING incoming_experiments
WHERE experiment_measures.experiment = incoming_experiments.experiment
  AND experiment_measures.run_date = incoming_experiments.run_date;

DELETE FROM experiment_query_measures USING incoming_experiments
WHERE experiment_query_measures.experiment = incoming_experiments.experiment
  AND experiment_query_measures.run_date = incoming_experiments.run_date;

DELETE FROM experiment_rankings USING incoming_experiments
WHERE experiment_rankings.experiment = incoming_experiments.experiment
  AND experiment_rankings.run_date = incoming_experiments.run_date;

DELETE FROM experiment_tests USING incoming_experiments
WHERE experiment_tests.experiment = incoming_experiments.experiment
  AND experiment_tests.run_date = incoming_experiments.run_date;

DELETE FROM experiment_provenance USING incoming_experiments
WHERE experiment_provenance.experiment = incoming_experiments.experiment
  AND experiment_provenance.run_date = incoming_experiments.run_date;

DELETE FROM experiments USING incoming_experiments
WHERE experiments.experiment = incoming_experiments.experiment
  AND experiments.run_date = incoming_experiments.run_date;
