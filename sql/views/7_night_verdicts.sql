-- One word for each night: the worst over its arms, the arms that have it, and whether a
-- control arm, which no model reranks, moved as well.
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
    bool_or(arm_verdicts.verdict NOT IN ('first', 'identical'))
        FILTER (arm_verdicts.arm = 'bm25') AS bm25_moved,
    bool_or(arm_verdicts.verdict NOT IN ('first', 'identical'))
        FILTER (arm_verdicts.arm = 'cosine') AS cosine_moved
FROM words
INNER JOIN arm_verdicts USING (run_date, collection)
GROUP BY ALL;
