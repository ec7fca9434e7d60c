-- PE-Rank's nDCG@10 over the nights, the noise band it was judged by, and who accepted what.
FROM measure_trend((SELECT any_value(collection) FROM latest_runs), 'perank', 'nDCG@10');
