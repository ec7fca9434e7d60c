-- What reranking cost each result: speed, tokens, memory, and the device they belong to.
CREATE OR REPLACE VIEW rerank_costs AS
WITH machine AS (
    SELECT series, run_date, collection, arm_hash, string_agg(value, ', ' ORDER BY key) AS name
    FROM provenance
    WHERE key IN ('processor', 'accelerators', 'threads')
    GROUP BY ALL
)
SELECT
    series,
    run_date,
    collection,
    efficiency.arm,
    arm_hash,
    concat_ws(', ', efficiency.device, machine.name) AS device,
    efficiency.seconds,
    efficiency.items_per_second AS queries_per_second,
    efficiency.tokens_in / nullif(efficiency.items, 0) AS tokens_per_query,
    efficiency.peak_memory_bytes
FROM efficiency
LEFT JOIN machine USING (series, run_date, collection, arm_hash)
WHERE efficiency.stage = 'rerank';
