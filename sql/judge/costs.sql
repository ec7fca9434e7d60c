-- What reranking took of each quantity, night by night, with the words of nights before $since.
-- Below $min_seconds a speed measures start-up.
SELECT costs.*, cost_verdicts.verdict
FROM (
    UNPIVOT (
        SELECT
            series,
            run_date,
            collection,
            arm_hash,
            device,
            if(seconds >= $min_seconds, nullif(queries_per_second, 0), NULL) AS "queries/s",
            nullif(tokens_per_query, 0) AS "tokens/query",
            nullif(peak_memory_bytes, 0) :: DOUBLE AS "peak memory"
        FROM rerank_costs
        WHERE series = $series AND collection = $collection
    )
    ON "queries/s", "tokens/query", "peak memory"
    INTO NAME quantity VALUE value
) AS costs
LEFT JOIN cost_verdicts
    ON cost_verdicts.series = costs.series AND cost_verdicts.run_date = costs.run_date
    AND cost_verdicts.collection = costs.collection
    AND cost_verdicts.arm_hash = costs.arm_hash AND cost_verdicts.quantity = costs.quantity
    AND cost_verdicts.run_date < $since;
