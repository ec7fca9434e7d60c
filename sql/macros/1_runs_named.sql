-- Results by name: 'DATE', 'DATE/arm' or 'DATE/arm/collection'; an arm_hash will do for an arm.
CREATE OR REPLACE MACRO runs_named(run) AS TABLE
SELECT run_date, collection, arm, arm_hash
FROM runs
WHERE run_date = split_part(run, '/', 1)::DATE
    AND split_part(run, '/', 2) IN ('', arm, arm_hash)
    AND split_part(run, '/', 3) IN ('', collection);
