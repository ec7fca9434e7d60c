-- The two newest nights side by side, arm by arm and measure by measure.
FROM compare_runs(
    (SELECT max(run_date)::VARCHAR FROM night_verdicts WHERE run_date < (SELECT max(run_date) FROM night_verdicts)),
    (SELECT max(run_date)::VARCHAR FROM night_verdicts)
);
