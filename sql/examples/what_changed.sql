-- What was different between the last two nights: code, libraries, hardware, data?
WITH dates AS (
    SELECT collection, arm_hash, run_date,
           lag(run_date) OVER (PARTITION BY collection, arm_hash ORDER BY run_date) AS previous_date
    FROM runs
    QUALIFY row_number() OVER (PARTITION BY collection, arm_hash ORDER BY run_date DESC) = 1
)
SELECT dates.collection, now.arm, now.key, before.value AS before, now.value AS now
FROM dates
INNER JOIN provenance AS now USING (run_date, collection, arm_hash)
INNER JOIN provenance AS before
    ON before.run_date = dates.previous_date AND before.collection = now.collection
    AND before.arm_hash = now.arm_hash AND before.key = now.key
WHERE now.value IS DISTINCT FROM before.value
ORDER BY ALL;
