-- What was different between each result and the baseline it was judged by; null: absent.
CREATE OR REPLACE VIEW changes AS
WITH pairs AS (
    SELECT DISTINCT run_date, collection, arm, arm_hash, baseline_date, baseline_arm_hash
    FROM verdicts
    WHERE baseline_date IS NOT NULL
),
now AS (
    SELECT pairs.*, run_facts.key, run_facts.value
    FROM pairs
    INNER JOIN run_facts USING (run_date, collection, arm_hash)
),
before AS (
    SELECT pairs.*, run_facts.key, run_facts.value
    FROM pairs
    INNER JOIN run_facts
        ON run_facts.run_date = pairs.baseline_date
        AND run_facts.collection = pairs.collection
        AND run_facts.arm_hash = pairs.baseline_arm_hash
)
SELECT
    run_date,
    collection,
    arm,
    arm_hash,
    baseline_date,
    baseline_arm_hash,
    key,
    before.value AS before,
    now.value AS now
FROM now
FULL JOIN before
    USING (run_date, collection, arm, arm_hash, baseline_date, baseline_arm_hash, key)
WHERE now.value IS DISTINCT FROM before.value;
