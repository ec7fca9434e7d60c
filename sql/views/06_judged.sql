-- Every measure of every night's result: its verdict, its mean, and the comparison with the
-- baseline that the verdict rests on.
CREATE OR REPLACE VIEW judged AS
SELECT
    verdicts.*,
    coalesce(measures.value, comparisons.value) AS value,
    comparisons.* EXCLUDE (
        series, run_date, collection, arm, arm_hash, measure, against_date, against_arm_hash, value
    )
FROM verdicts
LEFT JOIN comparisons
    USING (series, run_date, collection, arm_hash, measure, against_date, against_arm_hash)
LEFT JOIN measures USING (series, run_date, collection, arm_hash, measure);
