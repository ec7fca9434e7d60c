-- The two newest nights side by side, arm by arm and measure by measure.
FROM compare_runs(
    (SELECT max(run_date)::VARCHAR FROM runs WHERE run_date < (SELECT max(run_date) FROM runs)),
    (SELECT max(run_date)::VARCHAR FROM runs)
);
