-- Which relevant passages left the first ten of their query since the accepted night?
WITH before AS (
    SELECT
        words.series, words.run_date, words.collection, words.arm, words.arm_hash,
        query_id, passage_id, rank AS rank_before
    FROM arm_verdicts AS words
    SEMI JOIN latest_runs USING (series, run_date, collection, arm_hash)
    INNER JOIN rankings
        ON rankings.series = words.series AND rankings.run_date = words.against_date
        AND rankings.collection = words.collection AND rankings.arm_hash = words.against_arm_hash
    WHERE rank <= 10
)
SELECT
    collection, arm, query_id, queries.text AS query, passage_id, relevance, rank_before,
    rank AS rank_now, passages.text
FROM before
INNER JOIN runs USING (series, run_date, collection, arm, arm_hash)
INNER JOIN judgements USING (collection, snapshot, query_id, passage_id)
INNER JOIN queries USING (collection, snapshot, query_id)
LEFT JOIN rankings USING (series, run_date, collection, arm, arm_hash, query_id, passage_id)
LEFT JOIN passages USING (collection, snapshot, passage_id)
WHERE relevance > 0 AND (rank > 10 OR rank IS NULL)
ORDER BY relevance DESC, rank_before, collection, arm, query_id;
