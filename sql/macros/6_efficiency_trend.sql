-- What one arm's reranking cost over the nights, with the words of `cost_verdicts`.
CREATE OR REPLACE MACRO efficiency_trend(collection_name, arm_name) AS TABLE
SELECT
    costs.run_date,
    costs.arm_hash,
    costs.device,
    costs.seconds,
    costs.queries_per_second,
    costs.tokens_per_query,
    costs.peak_memory_bytes,
    list(judged.quantity || ': ' || judged.verdict ORDER BY judged.quantity)
        FILTER (judged.verdict NOT IN ('first', 'usual')) AS unusual
FROM rerank_costs AS costs
LEFT JOIN cost_verdicts AS judged USING (series, run_date, collection, arm_hash)
WHERE costs.series = 'nightly' AND costs.collection = collection_name
    AND costs.arm = arm_name
GROUP BY ALL
ORDER BY costs.run_date, costs.arm_hash;
