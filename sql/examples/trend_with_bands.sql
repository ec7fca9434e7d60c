-- nDCG@10 of every arm over the nights, the noise band it was judged by, and who accepted what.
SELECT newest.collection, newest.arm, trend.*
FROM (SELECT DISTINCT collection, arm FROM latest_runs) AS newest,
    measure_trend(newest.collection, newest.arm, 'nDCG@10') AS trend
ORDER BY ALL;
