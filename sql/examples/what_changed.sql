-- What was different between the newest night and the one it was judged by: code, libraries,
-- hardware, settings, data?
SELECT collection, arm, against_date, key, before, now
FROM changes
QUALIFY run_date = max(run_date) OVER (PARTITION BY collection)
ORDER BY ALL;
