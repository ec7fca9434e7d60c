-- Each result against the one before it: of the same configuration where there is one, else of
-- the same arm under another configuration and over as many queries. Plain words, no test of
-- significance:
--   first       nothing earlier to compare with
--   identical   every query ranks exactly as before
--   changed     rankings differ; the deltas say which way
--   incomplete  too many queries could not be ranked to say anything
-- A view, so that filling in or running an old date again needs no second step.
CREATE OR REPLACE VIEW verdicts AS
WITH pairs AS (
    SELECT
        now.run_date,
        now.collection,
        now.arm,
        now.arm_hash,
        now.status,
        now.ranking_hash,
        before.run_date AS previous_date,
        before.arm_hash AS previous_arm_hash,
        before.ranking_hash AS previous_ranking_hash,
        now.snapshot IS DISTINCT FROM before.snapshot AS collection_changed,
        now.fingerprint IS DISTINCT FROM before.fingerprint AS fingerprint_changed
    FROM runs AS now
    LEFT JOIN runs AS before
        ON before.collection = now.collection
        AND before.run_date < now.run_date
        AND (
            before.arm_hash = now.arm_hash
            OR (before.arm = now.arm AND before.queries = now.queries)
        )
    QUALIFY row_number() OVER (
        PARTITION BY now.run_date, now.collection, now.arm_hash
        ORDER BY before.arm_hash = now.arm_hash DESC, before.run_date DESC, before.arm_hash
    ) = 1
),
deltas AS (
    SELECT
        pairs.run_date,
        pairs.collection,
        pairs.arm_hash,
        avg(now.value) - avg(before.value) AS ndcg_10_delta,
        count(*) FILTER (now.value > before.value) AS queries_better,
        count(*) FILTER (now.value < before.value) AS queries_worse
    FROM pairs
    INNER JOIN query_measures AS now USING (run_date, collection, arm_hash)
    INNER JOIN query_measures AS before
        ON before.run_date = pairs.previous_date
        AND before.collection = pairs.collection
        AND before.arm_hash = pairs.previous_arm_hash
        AND before.query_id = now.query_id
        AND before.measure = now.measure
    WHERE now.measure = 'nDCG@10'
    GROUP BY ALL
)
SELECT
    run_date,
    collection,
    arm,
    arm_hash,
    CASE
        WHEN status = 'incomplete' THEN 'incomplete'
        WHEN previous_date IS NULL THEN 'first'
        WHEN ranking_hash = previous_ranking_hash THEN 'identical'
        ELSE 'changed'
    END AS verdict,
    previous_date,
    previous_arm_hash,
    coalesce(arm_hash <> previous_arm_hash, false) AS configuration_changed,
    previous_date IS NOT NULL AND collection_changed AS collection_changed,
    previous_date IS NOT NULL AND fingerprint_changed AS fingerprint_changed,
    ndcg_10_delta,
    queries_better,
    queries_worse
FROM pairs
LEFT JOIN deltas USING (run_date, collection, arm_hash);
