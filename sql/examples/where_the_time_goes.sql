-- Seconds and peak memory of every stage, by arm, of the newest night.
SELECT collection, arm, stage, round(efficiency.seconds, 1) AS seconds, items,
       round(items_per_second, 1) AS items_per_second,
       round(peak_memory_bytes / 1024 ** 3, 2) AS peak_gib, efficiency.device
FROM efficiency
INNER JOIN latest_runs USING (series, run_date, collection, arm, arm_hash)
ORDER BY collection, arm, seconds DESC;
