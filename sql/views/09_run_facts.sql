-- Everything that was recorded of how a result came about, one fact a row: code, libraries,
-- hardware, the collection's content, the embedder, and as `arm.…` the arm's settings. Names of
-- artifacts are left out: they differ whenever anything does.
CREATE OR REPLACE VIEW run_facts AS
SELECT series, run_date, collection, arm, arm_hash, key, value
FROM provenance
WHERE NOT starts_with(key, 'artifact.')
UNION ALL
SELECT runs.series, runs.run_date, runs.collection, runs.arm, runs.arm_hash, 'arm.' || field.key, field.value ->> '$'
FROM runs, json_each(runs.config) AS field
WHERE json_type(field.value) <> 'NULL'
UNION ALL
SELECT series, run_date, collection, arm, arm_hash, 'device', device
FROM efficiency
WHERE stage = 'rerank';
