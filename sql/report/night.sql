-- One night's results, the best first. Where $run_date or $collection is null, the night
-- that was evaluated last.
SELECT *
FROM run_summary
WHERE run_date = coalesce($run_date, run_date) AND collection = coalesce($collection, collection)
QUALIFY (run_date, collection) = first_value((run_date, collection)) OVER (ORDER BY evaluated_at DESC)
ORDER BY ndcg_10 DESC NULLS LAST, arm, arm_hash;
