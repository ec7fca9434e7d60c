-- Which ten queries of every collection's newest night lost most, and what do they ask?
SELECT worst.*
FROM (SELECT DISTINCT collection, run_date FROM latest_runs) AS newest,
    worst_queries(newest.run_date || '//' || newest.collection, 10) AS worst
ORDER BY collection, delta;
