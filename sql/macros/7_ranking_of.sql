-- What results rank for one query, with what was judged and what the passages say:
-- ranking_of('2026-01-31/perank', 'q7').
CREATE OR REPLACE MACRO ranking_of(run, query) AS TABLE
SELECT
    ranked.series, ranked.run_date, ranked.collection, ranked.arm, ranked.query_id, ranked.rank,
    ranked.first_stage_rank, ranked.passage_id, ranked.score, judgements.relevance, passages.title,
    passages.text
FROM runs_named(run) AS named
INNER JOIN runs USING (series, run_date, collection, arm_hash)
INNER JOIN rankings AS ranked USING (series, run_date, collection, arm_hash)
LEFT JOIN judgements USING (collection, snapshot, query_id, passage_id)
LEFT JOIN passages USING (collection, snapshot, passage_id)
WHERE ranked.query_id = query
ORDER BY ALL;
