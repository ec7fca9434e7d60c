-- The two newest nights of every collection side by side, arm by arm and measure by measure.
WITH newest AS (
    SELECT
        collection || '' AS name,
        max(run_date)::VARCHAR AS night,
        max(run_date, 2)[2]::VARCHAR AS night_before
    FROM night_verdicts
    GROUP BY collection
)
SELECT compared.*
FROM newest, compare_runs(night_before || '//' || name, night || '//' || name) AS compared;
