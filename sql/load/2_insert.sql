-- Insert a night's rows; incoming_* are its Parquet tables, registered by the loader.
INSERT INTO runs BY NAME SELECT * FROM incoming_runs;
INSERT INTO measures BY NAME SELECT * FROM incoming_measures;
INSERT INTO query_measures BY NAME SELECT * FROM incoming_query_measures;
INSERT INTO rankings BY NAME SELECT * FROM incoming_rankings;
INSERT INTO efficiency BY NAME SELECT * FROM incoming_efficiency;
INSERT INTO provenance BY NAME SELECT * FROM incoming_provenance;
INSERT INTO symptoms BY NAME SELECT * FROM incoming_symptoms;

-- A snapshot is named by its content: what is there of it already stays.
INSERT INTO queries BY NAME
SELECT * FROM incoming_queries ANTI JOIN queries USING (collection, snapshot);
INSERT INTO judgements BY NAME
SELECT * FROM incoming_judgements ANTI JOIN judgements USING (collection, snapshot);
