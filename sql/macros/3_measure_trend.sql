-- One arm's mean of one measure over the nights, with the noise band it was judged by (as
-- bounds of the mean itself), its verdict, and the acceptances of that very night. The measure
-- may be overlap@10, the share of the baseline's top ten that is still there: it has no band.
CREATE OR REPLACE MACRO measure_trend(collection_name, arm_name, measure_name) AS TABLE
SELECT
    means.run_date,
    means.arm_hash,
    means.value,
    judged.against_date,
    means.value - judged.delta AS against_value,
    means.value - judged.delta + judged.band_low AS band_low,
    means.value - judged.delta + judged.band_high AS band_high,
    judged.delta,
    judged.p_holm,
    judged.verdict,
    (
        SELECT string_agg(act.name || ': ' || act.reason, '; ' ORDER BY act.accepted_at)
        FROM baselines AS act
        WHERE act.collection = means.collection AND act.run_date = means.run_date
            AND coalesce(act.arm, means.arm) = means.arm
    ) AS accepted
FROM (
    SELECT series, run_date, collection, arm, arm_hash, measure, value FROM measures
    WHERE series = 'nightly'
    UNION ALL
    SELECT series, run_date, collection, arm, arm_hash, measure, value FROM comparisons
    WHERE measure = 'overlap@10'
) AS means
LEFT JOIN judged USING (series, run_date, collection, arm_hash, measure)
WHERE means.collection = collection_name AND means.arm = arm_name
    AND means.measure = measure_name
ORDER BY means.run_date, means.arm_hash;
