-- The results of one series, date and collection, the best first. Where $run_date or $collection is
-- null, those that were evaluated last, of all queries if there are any.
SELECT *
FROM run_summary
WHERE series = $series
    AND run_date = coalesce($run_date, run_date)
    AND collection = coalesce($collection, collection)
QUALIFY
    (run_date, collection) = first_value((run_date, collection)) OVER (
        ORDER BY queries < collection_queries, evaluated_at DESC
    )
ORDER BY ndcg_10 DESC NULLS LAST, arm, arm_hash;
