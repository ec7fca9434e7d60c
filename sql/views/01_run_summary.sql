-- Every result on one line: its measures as columns and what ranking it cost.
CREATE OR REPLACE VIEW run_summary AS
WITH wide AS (
    SELECT
        series,
        run_date,
        collection,
        arm_hash,
        max(value) FILTER (measure = 'nDCG@10') AS ndcg_10,
        max(value) FILTER (measure = 'MRR@10') AS mrr_10,
        max(value) FILTER (measure = 'recall@100') AS recall_100,
        max(value) FILTER (measure = 'MAP') AS map,
        max(value) FILTER (measure = 'judged@10') AS judged_10
    FROM measures
    GROUP BY ALL
),
cost AS (
    SELECT
        series,
        run_date,
        collection,
        arm_hash,
        device,
        seconds,
        items_per_second AS queries_per_second
    FROM efficiency
    WHERE stage = 'rerank'
),
odd_data AS (
    SELECT series, run_date, collection, arm_hash, list(value ORDER BY key) AS odd
    FROM provenance
    WHERE starts_with(key, 'odd.')
    GROUP BY ALL
)
SELECT
    series,
    run_date,
    collection,
    runs.arm,
    arm_hash,
    runs.config ->> 'ranker' AS ranker,
    runs.status,
    wide.* EXCLUDE (series, run_date, collection, arm_hash),
    cost.* EXCLUDE (series, run_date, collection, arm_hash),
    runs.passages,
    runs.queries,
    runs.collection_queries,
    runs.judged_queries,
    runs.unranked_queries,
    runs.unranked_reason,
    runs.cut_queries,
    runs.stale_judgements,
    runs.unknown_judgements,
    runs.top_10_results,
    runs.top_10_unjudged,
    odd_data.odd,
    runs.evaluated_at,
    runs.config
FROM runs
LEFT JOIN wide USING (series, run_date, collection, arm_hash)
LEFT JOIN cost USING (series, run_date, collection, arm_hash)
LEFT JOIN odd_data USING (series, run_date, collection, arm_hash);
