-- One run of an experiment: that of the date, or the newest.
SELECT * FROM experiments
WHERE series = $series AND run_date = coalesce($run_date, run_date)
ORDER BY run_date DESC
LIMIT 1;
