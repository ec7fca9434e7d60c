-- One word for every night, and the arms that earned it.
FROM night_verdicts
ORDER BY collection, run_date;
