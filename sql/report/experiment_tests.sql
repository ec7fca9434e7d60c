-- The tests of one run of an experiment.
SELECT * FROM experiment_tests
WHERE experiment = $experiment AND run_date = $run_date;
