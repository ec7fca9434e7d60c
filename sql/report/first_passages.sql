-- Of some queries, what a result and the one it is held against rank first, each with the rank on
-- the other side (null: not there), what was judged and what the passages say: the first five ranks,
-- and below them, to the tenth, relevant passages only.
WITH sides AS (
    SELECT 'after' AS side, rankings.*
    FROM rankings
    WHERE series = $series AND run_date = $run_date AND collection = $collection
        AND arm = $arm AND arm_hash = $arm_hash
    UNION ALL
    SELECT 'before' AS side, rankings.*
    FROM rankings
    WHERE series = $series AND run_date = $against_date AND collection = $collection
        AND arm_hash = $against_arm_hash
)
SELECT
    sides.query_id,
    sides.side,
    sides.rank,
    other.rank AS other_rank,
    sides.passage_id,
    title,
    passages.text,
    relevance
FROM sides
INNER JOIN runs USING (series, run_date, collection, arm_hash)
LEFT JOIN judgements USING (collection, snapshot, query_id, passage_id)
LEFT JOIN passages USING (collection, snapshot, passage_id)
LEFT JOIN sides AS other
    ON other.side <> sides.side AND other.query_id = sides.query_id
    AND other.passage_id = sides.passage_id
WHERE sides.query_id IN (SELECT unnest($queries::VARCHAR[]))
    AND (sides.rank <= 5 OR (sides.rank <= 10 AND relevance > 0))
ORDER BY sides.query_id, sides.side, sides.rank;
