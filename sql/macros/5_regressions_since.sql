-- Every arm and measure called a regression on a date or later, the newest first.
CREATE OR REPLACE MACRO regressions_since(since) AS TABLE
SELECT
    run_date, collection, arm, arm_hash, measure, delta, ci_low, ci_high, p_holm, tests, reason,
    against_date
FROM judged
WHERE verdict = 'regression' AND run_date >= since::DATE
ORDER BY run_date DESC, collection, arm, measure;
