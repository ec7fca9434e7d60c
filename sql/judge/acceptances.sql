-- A collection's acceptances; the one that holds comes first: the newest as of its date, then as of
-- its act.
SELECT as_of, arm, run_date
FROM baselines
WHERE collection = $collection
ORDER BY as_of DESC, accepted_at DESC, baseline_id;
