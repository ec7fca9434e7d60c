-- The results of the newest night of each collection that ranked all its queries, the best arm
-- first.
CREATE OR REPLACE VIEW latest_runs AS
SELECT *
FROM run_summary
WHERE series = 'nightly' AND queries = collection_queries
QUALIFY run_date = max(run_date) OVER (PARTITION BY collection)
ORDER BY collection, ndcg_10 DESC NULLS LAST;
