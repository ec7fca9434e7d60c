-- Speed, tokens and memory of PE-Rank by date, and what was unusual for its machine.
FROM efficiency_trend((SELECT any_value(collection) FROM latest_runs), 'perank');
