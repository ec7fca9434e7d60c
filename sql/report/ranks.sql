-- One result's rankings of some queries, best first, with what was judged and what the passages say.
SELECT query_id, passage_id, rank, relevance, title, passages.text
FROM rankings
INNER JOIN runs USING (series, run_date, collection, arm_hash)
LEFT JOIN judgements USING (collection, snapshot, query_id, passage_id)
LEFT JOIN passages USING (collection, snapshot, passage_id)
WHERE series = $series AND run_date = $run_date AND collection = $collection
    AND arm_hash = $arm_hash AND query_id IN (SELECT unnest($queries))
ORDER BY query_id, rank;
