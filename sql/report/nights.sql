-- Every night of every collection on one line, the newest first: its word, who has it, the best
-- arm by nDCG@10, what was slower or costlier than usual, and whether it ranked a few queries only.
WITH best AS (
    SELECT
        run_date,
        collection,
        arg_max(arm, (ndcg_10, arm)) AS best_arm,
        max(ndcg_10) AS best_ndcg_10,
        max(queries) AS queries,
        max(collection_queries) AS collection_queries
    FROM run_summary
    WHERE series = 'nightly'
    GROUP BY ALL
),
costs AS (
    SELECT run_date, collection, list(DISTINCT arm || ' ' || verdict ORDER BY arm || ' ' || verdict)
        FILTER (verdict IN ('slower', 'costlier')) AS unusual
    FROM cost_verdicts
    GROUP BY ALL
)
SELECT
    night_verdicts.*,
    best_arm,
    best_ndcg_10,
    unusual,
    queries,
    collection_queries,
    queries < collection_queries AS limited
FROM night_verdicts
LEFT JOIN best USING (run_date, collection)
LEFT JOIN costs USING (run_date, collection)
ORDER BY collection, run_date DESC;
