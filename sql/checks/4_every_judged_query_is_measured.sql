-- Each measure has a value for every judged query, possible and as the mean says.
SELECT format('{}: {} has {} of {} judged queries', runs.arm, measures.measure,
    count(query_measures.query_id), runs.judged_queries) AS problem
FROM runs
INNER JOIN measures USING (arm_hash)
LEFT JOIN query_measures USING (arm_hash, measure)
GROUP BY runs.arm, runs.arm_hash, runs.judged_queries, measures.measure
HAVING count(query_measures.query_id) <> runs.judged_queries
UNION ALL
SELECT format('{}: {} of query {} is {}, and should be from 0 to 1', arm, measure, query_id, value)
FROM query_measures
WHERE value IS NULL OR NOT value BETWEEN 0 AND 1
UNION ALL
SELECT format('{}: the mean of {} is {}, and its queries have {}', measures.arm, measures.measure,
    any_value(measures.value), avg(query_measures.value))
FROM measures
INNER JOIN query_measures USING (arm_hash, measure)
GROUP BY measures.arm, measures.arm_hash, measures.measure
HAVING abs(any_value(measures.value) - avg(query_measures.value)) > 1e-9
UNION ALL
SELECT format('{}: {} queries are judged and none has a measure', runs.arm, runs.judged_queries)
FROM runs
LEFT JOIN measures USING (arm_hash)
WHERE runs.judged_queries > 0 AND measures.measure IS NULL;
