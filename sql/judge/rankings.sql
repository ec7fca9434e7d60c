-- One result's rankings, best first.
SELECT
    query_id,
    list(passage_id ORDER BY rank) AS passages,
    list(score ORDER BY rank) AS scores
FROM rankings
WHERE series = $series AND run_date = $run_date AND collection = $collection
    AND arm = $arm AND arm_hash = $arm_hash
GROUP BY query_id;
