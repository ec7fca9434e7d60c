-- What the LLM of a checkpoint adds to its residual: of each arm beside the one that differs from it by
-- having its LLM switched off alone, by how much nDCG@10 differs, query by query.
SELECT
    own.arm,
    switched_off.arm AS switched_off,
    list(mine.value - its.value ORDER BY mine.query_id) AS deltas
FROM runs AS own
INNER JOIN runs AS switched_off
    USING (series, run_date, collection)
INNER JOIN query_measures AS mine
    ON (mine.series, mine.run_date, mine.collection, mine.arm_hash)
    = (series, run_date, collection, own.arm_hash)
INNER JOIN query_measures AS its
    ON (its.series, its.run_date, its.collection, its.arm_hash)
    = (series, run_date, collection, switched_off.arm_hash)
    AND (its.query_id, its.measure) = (mine.query_id, mine.measure)
WHERE
    (series, run_date, collection) = ($series, $run_date, $collection)
    AND mine.measure = 'nDCG@10'
    AND mine.value IS NOT NULL
    AND its.value IS NOT NULL
    AND own.config ->> 'decoding' <> 'residual'
    AND switched_off.config ->> 'decoding' = 'residual'
    AND json_merge_patch(own.config, '{"decoding": null, "prompt": null}')
    = json_merge_patch(switched_off.config, '{"decoding": null, "prompt": null}')
GROUP BY ALL
ORDER BY ALL;
