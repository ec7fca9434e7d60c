-- The query that lost most in every collection's newest night, and what is first for it now.
WITH worst AS (
    SELECT worst.*
    FROM (SELECT DISTINCT collection, run_date FROM latest_runs) AS newest,
        worst_queries(newest.run_date || '//' || newest.collection, 1) AS worst
)
SELECT collection, arm, query_id, query, round(delta, 4) AS delta, rank, passage_id, relevance, passages.text
FROM worst
INNER JOIN runs USING (series, run_date, collection, arm)
INNER JOIN rankings USING (series, run_date, collection, arm, arm_hash, query_id)
LEFT JOIN judgements USING (collection, snapshot, query_id, passage_id)
LEFT JOIN passages USING (collection, snapshot, passage_id)
WHERE rank <= 5
ORDER BY collection, arm, rank;
