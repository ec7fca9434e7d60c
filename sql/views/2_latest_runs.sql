-- The results of the newest date of each collection, the best arm first.
CREATE OR REPLACE VIEW latest_runs AS
SELECT *
FROM run_summary
QUALIFY run_date = max(run_date) OVER (PARTITION BY collection)
ORDER BY collection, ndcg_10 DESC NULLS LAST;
