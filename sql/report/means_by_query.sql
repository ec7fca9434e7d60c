-- Each query's value of every measure, result by result, for intervals of the means.
SELECT arm_hash, measure, list(value ORDER BY query_id) AS by_query
FROM query_measures
WHERE series = $series AND run_date = $run_date AND collection = $collection
GROUP BY ALL
ORDER BY ALL;
