-- Insert an experiment's rows; incoming_* are its Parquet tables, registered by the loader.
INSERT INTO experiments BY NAME SELECT * FROM incoming_experiments;
INSERT INTO experiment_cells BY NAME SELECT * FROM incoming_experiment_cells;
INSERT INTO comparisons BY NAME SELECT * FROM incoming_comparisons;
