-- What judges have to read: every passage in some arm's first $depth, of the newest night of
-- $collection. No arm, no rank.
SELECT DISTINCT runs.snapshot, rankings.query_id, rankings.passage_id
FROM rankings
INNER JOIN latest_runs AS newest USING (series, run_date, collection, arm_hash)
INNER JOIN runs USING (series, run_date, collection, arm_hash)
WHERE newest.collection = $collection AND rankings.rank <= $depth
ORDER BY ALL;
