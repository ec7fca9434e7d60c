-- Every result of a series and collection, as `nights.Run` has it.
SELECT
    series,
    run_date,
    collection,
    runs.arm,
    arm_hash,
    status = 'complete' AS complete,
    judged_queries > 0 AS measured,
    queries < collection_queries AS limited,
    ranking_hash,
    snapshot,
    string_agg(value, ' ' ORDER BY key) AS judgements,
    coalesce(
        max(value) FILTER (key = 'collection.relevance_level'), '1'
    ) :: INTEGER AS relevance_level,
    if(
        config ->> 'ranker' = 'perank' AND config ->> 'decoding' = 'residual',
        'llm-off',
        config ->> 'ranker'
    ) AS ranker,
    coalesce((
        SELECT string_agg(field.key || '=' || field.value, ' ' ORDER BY field.key)
        FROM json_each(config) AS field
        WHERE starts_with(field.key, 'first_stage.')
    ), '') AS first_stage
FROM runs
INNER JOIN provenance USING (series, run_date, collection, arm_hash)
WHERE series = $series AND collection = $collection
    AND key IN ('collection.qrels_hash', 'collection.relevance_level')
GROUP BY ALL
ORDER BY run_date, runs.arm, arm_hash;
