-- What reranking cost one page's results: a line each, with the words of `cost_verdicts`.
SELECT
    costs.*,
    efficiency.flops,
    list(judged.quantity || ': ' || judged.verdict ORDER BY judged.quantity)
        FILTER (judged.verdict NOT IN ('first', 'usual')) AS unusual
FROM rerank_costs AS costs
INNER JOIN efficiency USING (series, run_date, collection, arm_hash)
LEFT JOIN cost_verdicts AS judged USING (series, run_date, collection, arm_hash)
WHERE
    costs.series = $series
    AND costs.run_date = $run_date
    AND costs.collection = $collection
    AND efficiency.stage = 'rerank'
GROUP BY ALL
ORDER BY ALL;
