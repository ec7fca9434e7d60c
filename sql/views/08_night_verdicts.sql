-- One word for each night: the worst over its arms, the arms that have it, and the control arms
-- that moved as well: those that rank by the first stage or by the cosine alone.
CREATE OR REPLACE VIEW night_verdicts AS
WITH words AS (
    SELECT run_date, collection, max(verdict) AS verdict
    FROM arm_verdicts
    GROUP BY ALL
)
SELECT
    run_date,
    collection,
    words.verdict,
    list(arm_verdicts.arm ORDER BY arm_verdicts.arm)
        FILTER (arm_verdicts.verdict = words.verdict) AS arms,
    list(arm_verdicts.arm ORDER BY arm_verdicts.arm) FILTER (
        arm_verdicts.verdict NOT IN ('first', 'identical')
        AND run_summary.ranker IN ('first-stage', 'cosine')
    ) AS control_arms_moved
FROM words
INNER JOIN arm_verdicts USING (run_date, collection)
INNER JOIN run_summary USING (series, run_date, collection, arm_hash)
GROUP BY ALL;
