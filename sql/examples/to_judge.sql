-- How many of the newest night's first ten has nobody judged, and which are they? As a sheet to fill
-- in: python -m perank_tasks.collections.pydocs_data.judge sheet FILE --collection NAME
SELECT collection, query_id, query, passage_id, best_rank, arms, text
FROM unjudged
QUALIFY run_date = max(run_date) OVER (PARTITION BY collection)
ORDER BY collection, len(arms) DESC, best_rank, query_id;
