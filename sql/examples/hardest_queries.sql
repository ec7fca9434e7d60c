-- Which ten queries does even the best arm of the newest night do badly at, and how many relevant
-- passages do they have?
WITH best AS (
    SELECT collection, snapshot, query_id, max(value) AS best_ndcg_10
    FROM query_measures
    INNER JOIN runs USING (series, run_date, collection, arm_hash)
    SEMI JOIN latest_runs USING (series, run_date, collection, arm_hash)
    WHERE measure = 'nDCG@10'
    GROUP BY ALL
)
SELECT
    collection, query_id, queries.text AS query, round(best_ndcg_10, 4) AS best_ndcg_10,
    count(*) FILTER (relevance > 0) AS relevant
FROM best
INNER JOIN queries USING (collection, snapshot, query_id)
INNER JOIN judgements USING (collection, snapshot, query_id)
GROUP BY ALL
ORDER BY best_ndcg_10, collection, query_id
LIMIT 10;
