-- Speed, tokens and memory of every arm by date, and what was unusual for its machine.
SELECT newest.collection, newest.arm, trend.*
FROM (SELECT DISTINCT collection, arm FROM latest_runs) AS newest,
    efficiency_trend(newest.collection, newest.arm) AS trend
ORDER BY ALL;
