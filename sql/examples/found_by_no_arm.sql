-- Which relevant passages has no arm of the newest night among its candidates, and what do they say?
WITH newest AS (
    SELECT DISTINCT collection, snapshot, run_date
    FROM runs
    SEMI JOIN latest_runs USING (series, run_date, collection, arm_hash)
)
SELECT collection, query_id, queries.text AS query, passage_id, relevance, passages.text
FROM newest
INNER JOIN judgements USING (collection, snapshot)
INNER JOIN queries USING (collection, snapshot, query_id)
LEFT JOIN passages USING (collection, snapshot, passage_id)
ANTI JOIN (FROM rankings WHERE series = 'nightly') AS ranked
    USING (run_date, collection, query_id, passage_id)
WHERE relevance > 0
ORDER BY relevance DESC, collection, query_id, passage_id;
