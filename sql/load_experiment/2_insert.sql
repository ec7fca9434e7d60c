-- Insert an experiment's rows; incoming_* are its Parquet tables, registered by the loader.
INSERT INTO experiments BY NAME SELECT * FROM incoming_experiments;
INSERT INTO experiment_cells BY NAME SELECT * FROM incoming_experiment_cells;
INSERT INTO experiment_measures BY NAME SELECT * FROM incoming_experiment_measures;
INSERT INTO experiment_query_measures BY NAME SELECT * FROM incoming_experiment_query_measures;
INSERT INTO experiment_rankings BY NAME SELECT * FROM incoming_experiment_rankings;
INSERT INTO experiment_tests BY NAME SELECT * FROM incoming_experiment_tests;
INSERT INTO experiment_provenance BY NAME SELECT * FROM incoming_experiment_provenance;
