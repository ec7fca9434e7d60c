-- One line for each result of a night: the worst word over its measures, nDCG@10 against the
-- baseline, and how far its rankings drifted from it.
CREATE OR REPLACE VIEW arm_verdicts AS
WITH words AS (
    SELECT
        series,
        run_date,
        collection,
        arm,
        arm_hash,
        max(verdict) AS verdict,
        any_value(against_kind) AS against_kind,
        any_value(against_date) AS against_date,
        any_value(against_arm_hash) AS against_arm_hash,
        max(tests) AS tests
    FROM judged
    GROUP BY ALL
),
causes AS (
    -- The measures that have the worst word, those with the largest change first.
    SELECT
        series,
        run_date,
        collection,
        arm_hash,
        list(measure ORDER BY abs(delta) DESC NULLS LAST, measure) AS measures,
        any_value(reason) AS reason
    FROM judged
    INNER JOIN words USING (series, run_date, collection, arm_hash, verdict)
    GROUP BY ALL
),
moved AS (
    SELECT
        series,
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
    series,
    run_date,
    collection,
    words.arm,
    arm_hash,
    words.verdict,
    causes.measures,
    causes.reason,
    words.against_kind,
    words.against_date,
    words.against_arm_hash,
    words.tests,
    ndcg.value AS ndcg_10,
    ndcg.delta AS ndcg_10_delta,
    ndcg.ci_low AS ndcg_10_ci_low,
    ndcg.ci_high AS ndcg_10_ci_high,
    ndcg.p_holm AS ndcg_10_p_holm,
    ndcg.better AS queries_better,
    ndcg.worse AS queries_worse,
    moved.* EXCLUDE (series, run_date, collection, arm_hash)
FROM words
INNER JOIN causes USING (series, run_date, collection, arm_hash)
LEFT JOIN judged AS ndcg
    ON ndcg.series = words.series
    AND ndcg.run_date = words.run_date
    AND ndcg.collection = words.collection
    AND ndcg.arm_hash = words.arm_hash
    AND ndcg.measure = 'nDCG@10'
LEFT JOIN moved USING (series, run_date, collection, arm_hash);
