-- What was different between each result and the one it was held against; null: absent.
CREATE OR REPLACE VIEW changes AS
WITH pairs AS (
    SELECT DISTINCT series, run_date, collection, arm, arm_hash, against_date, against_arm_hash
    FROM comparisons
),
now AS (
    SELECT pairs.*, run_facts.key, run_facts.value
    FROM pairs
    INNER JOIN run_facts USING (series, run_date, collection, arm_hash)
),
before AS (
    SELECT pairs.*, run_facts.key, run_facts.value
    FROM pairs
    INNER JOIN run_facts
        ON run_facts.series = pairs.series
        AND run_facts.run_date = pairs.against_date
        AND run_facts.collection = pairs.collection
        AND run_facts.arm_hash = pairs.against_arm_hash
)
SELECT
    series,
    run_date,
    collection,
    arm,
    arm_hash,
    against_date,
    against_arm_hash,
    key,
    before.value AS before,
    now.value AS now
FROM now
FULL JOIN before
    USING (series, run_date, collection, arm, arm_hash, against_date, against_arm_hash, key)
WHERE now.value IS DISTINCT FROM before.value;
