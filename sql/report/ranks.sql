-- One result's rankings of some queries, best first.
SELECT query_id, passage_id, rank
FROM rankings
WHERE series = $series AND run_date = $run_date AND collection = $collection
    AND arm_hash = $arm_hash AND query_id IN (SELECT unnest($queries))
ORDER BY query_id, rank;
