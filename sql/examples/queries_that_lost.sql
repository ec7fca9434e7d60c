-- Which ten queries of the newest night lost most against the accepted one?
FROM worst_queries((SELECT max(run_date)::VARCHAR FROM night_verdicts), 10);
