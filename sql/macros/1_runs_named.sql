-- Results by name: 'DATE', 'DATE/arm' or 'DATE/arm/collection' are those of a night,
-- 'SERIES/arm' or 'SERIES@DATE/arm/collection' those of another series, the newest unless a date
-- is given. An arm_hash will do for an arm.
CREATE OR REPLACE MACRO runs_named(run) AS TABLE
WITH name AS (
    SELECT
        if(night IS NULL, split_part(parts[1], '@', 1), 'nightly') AS series,
        coalesce(night, try_cast(split_part(parts[1], '@', 2) AS DATE)) AS run_date,
        night IS NULL AND NOT contains(parts[1], '@') AS is_newest,
        coalesce(parts[2], '') AS arm,
        coalesce(parts[3], '') AS collection
    FROM (SELECT parts, try_cast(parts[1] AS DATE) AS night FROM (SELECT split(run, '/') AS parts))
    WHERE len(parts) <= 3
)
SELECT runs.series, runs.run_date, runs.collection, runs.arm, runs.arm_hash
FROM runs, name
WHERE runs.series = name.series
    AND name.arm IN ('', runs.arm, runs.arm_hash)
    AND name.collection IN ('', runs.collection)
    AND runs.run_date = if(
        name.is_newest,
        (SELECT max(all_runs.run_date) FROM runs AS all_runs WHERE all_runs.series = name.series),
        name.run_date
    );
