-- Nothing is there twice: no passage in a query's ranking, no value of a measure, no fact.
SELECT format('{}: query {} has passage {} {} times', arm, query_id, passage_id, count(*)) AS problem
FROM rankings
GROUP BY arm, arm_hash, query_id, passage_id
HAVING count(*) > 1
UNION ALL
SELECT format('{}: query {} has {} {} times', arm, query_id, measure, count(*))
FROM query_measures
GROUP BY arm, arm_hash, query_id, measure
HAVING count(*) > 1
UNION ALL
SELECT format('{}: there are {} results of one configuration', arm, count(*))
FROM runs
GROUP BY arm, arm_hash
HAVING count(*) > 1;
