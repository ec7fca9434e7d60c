-- What there is to judge: every passage that a night's arms have in the first ten of a judged query
-- and that nobody has judged, with both texts, and the arms that have it there.
CREATE OR REPLACE VIEW unjudged AS
SELECT
    runs.run_date,
    runs.collection,
    rankings.query_id,
    queries.text AS query,
    rankings.passage_id,
    passages.title,
    passages.text,
    list(runs.arm ORDER BY runs.arm) AS arms,
    min(rankings.rank) AS best_rank
FROM runs
INNER JOIN rankings USING (series, run_date, collection, arm_hash)
INNER JOIN queries USING (collection, snapshot, query_id)
LEFT JOIN passages USING (collection, snapshot, passage_id)
SEMI JOIN judgements AS of_query USING (collection, snapshot, query_id)
ANTI JOIN judgements USING (collection, snapshot, query_id, passage_id)
WHERE runs.series = 'nightly' AND rankings.rank <= 10
GROUP BY ALL;
