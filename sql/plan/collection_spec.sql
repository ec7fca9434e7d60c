-- Where the newest results named $collection are from.
SELECT provenance.value
FROM provenance
INNER JOIN runs USING (series, run_date, collection, arm_hash)
WHERE provenance.collection = $collection AND provenance.key = 'collection.spec'
ORDER BY runs.evaluated_at DESC
LIMIT 1;
