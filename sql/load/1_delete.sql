-- Remove every row of the results that are about to be inserted; incoming_runs names them.

DELETE FROM runs USING incoming_runs
WHERE runs.series = incoming_runs.series
  AND runs.run_date = incoming_runs.run_date
  AND runs.collection = incoming_runs.collection
  AND runs.arm_hash = incoming_runs.arm_hash;

DELETE FROM measures USING incoming_runs
WHERE measures.series = incoming_runs.series
  AND measures.run_date = incoming_runs.run_date
  AND measures.collection = incoming_runs.collection
  AND measures.arm_hash = incoming_runs.arm_hash;

DELETE FROM query_measures USING incoming_runs
WHERE query_measures.series = incoming_runs.series
  AND query_measures.run_date = incoming_runs.run_date
  AND query_measures.collection = incoming_runs.collection
  AND query_measures.arm_hash = incoming_runs.arm_hash;

DELETE FROM rankings USING incoming_runs
WHERE rankings.series = incoming_runs.series
  AND rankings.run_date = incoming_runs.run_date
  AND rankings.collection = incoming_runs.collection
  AND rankings.arm_hash = incoming_runs.arm_hash;

DELETE FROM efficiency USING incoming_runs
WHERE efficiency.series = incoming_runs.series
  AND efficiency.run_date = incoming_runs.run_date
  AND efficiency.collection = incoming_runs.collection
  AND efficiency.arm_hash = incoming_runs.arm_hash;

DELETE FROM provenance USING incoming_runs
WHERE provenance.series = incoming_runs.series
  AND provenance.run_date = incoming_runs.run_date
  AND provenance.collection = incoming_runs.collection
  AND provenance.arm_hash = incoming_runs.arm_hash;

DELETE FROM symptoms USING incoming_runs
WHERE symptoms.series = incoming_runs.series
  AND symptoms.run_date = incoming_runs.run_date
  AND symptoms.collection = incoming_runs.collection
  AND symptoms.arm_hash = incoming_runs.arm_hash;
