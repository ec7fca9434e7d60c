-- One line for each result: the worst word over its measures, nDCG@10 against the baseline,
-- and how far its rankings drifted from it.
CREATE OR REPLACE VIEW arm_verdicts AS
WITH words AS (
    SELECT
        run_date,
        collection,
        arm,
        arm_hash,
        max(verdict) AS verdict,
        any_value(baseline_kind) AS baseline_kind,
        any_value(baseline_date) AS baseline_date,
        any_value(baseline_arm_hash) AS baseline_arm_hash,
        max(tests) AS tests
    FROM verdicts
    GROUP BY ALL
),
causes AS (
    -- The measures that have the worst word, those with the largest change first.
    SELECT
        verdicts.run_date,
        verdicts.collection,
        verdicts.arm_hash,
        list(verdicts.measure ORDER BY abs(verdicts.delta) DESC NULLS LAST, verdicts.measure)
            AS measures,
        any_value(verdicts.reason) AS reason
    FROM verdicts
    INNER JOIN words USING (run_date, collection, arm_hash, verdict)
    GROUP BY ALL
),
moved AS (
    SELECT
        run_date,
        collection,
        arm_hash,
        count(*) AS drift_queries,
        count(*) FILTER (changed_top_10) AS changed_top_10,
        avg(overlap_10) AS overlap_10,
        avg(rbo) AS rbo,
        avg(kendall_tau) AS kendall_tau,
        max(score_shift) AS score_shift
    FROM drift
    GROUP BY ALL
)
SELECT
    run_date,
    collection,
    words.arm,
    arm_hash,
    words.verdict,
    causes.measures,
    causes.reason,
    words.baseline_kind,
    words.baseline_date,
    words.baseline_arm_hash,
    words.tests,
    ndcg.value AS ndcg_10,
    ndcg.delta AS ndcg_10_delta,
    ndcg.ci_low AS ndcg_10_ci_low,
    ndcg.ci_high AS ndcg_10_ci_high,
    ndcg.p_holm AS ndcg_10_p_holm,
    ndcg.better AS queries_better,
    ndcg.worse AS queries_worse,
    moved.* EXCLUDE (run_date, collection, arm_hash)
FROM words
INNER JOIN causes USING (run_date, collection, arm_hash)
LEFT JOIN verdicts AS ndcg
    ON ndcg.run_date = words.run_date
    AND ndcg.collection = words.collection
    AND ndcg.arm_hash = words.arm_hash
    AND ndcg.measure = 'nDCG@10'
LEFT JOIN moved USING (run_date, collection, arm_hash);
