-- The judgements by which a run was measured, of the queries that its baseline knew: measured,
-- or ranked.
SELECT query_id, map(list(passage_id), list(relevance)) AS grades
FROM judgements
SEMI JOIN (
    SELECT query_id
    FROM query_measures
    WHERE series = $series AND run_date = $run_date AND collection = $collection
        AND arm = $arm AND arm_hash = $arm_hash
) AS measured USING (query_id)
SEMI JOIN (
    SELECT query_id, series, run_date, collection, arm_hash FROM query_measures
    UNION ALL
    SELECT query_id, series, run_date, collection, arm_hash FROM rankings
) AS known
    ON known.query_id = judgements.query_id AND known.series = $against_series
    AND known.run_date = $against_date AND known.collection = $collection
    AND known.arm_hash = $against_arm_hash
WHERE collection = $collection AND snapshot = $snapshot
GROUP BY query_id;
