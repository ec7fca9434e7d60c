-- The checkpoints of one page's results that ranked because somebody had promoted them.
SELECT
    runs.config ->> 'checkpoint' AS checkpoint,
    max(provenance.value) FILTER (provenance.key = 'promotion.as_of') AS as_of,
    max(provenance.value) FILTER (provenance.key = 'promotion.name') AS name,
    max(provenance.value) FILTER (provenance.key = 'promotion.reason') AS reason
FROM runs
INNER JOIN provenance USING (series, run_date, collection, arm_hash)
WHERE
    runs.series = $series
    AND runs.run_date = $run_date
    AND runs.collection = $collection
    AND starts_with(provenance.key, 'promotion.')
GROUP BY ALL
ORDER BY ALL;
