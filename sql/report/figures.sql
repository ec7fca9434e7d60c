-- The means of a night that its run in Airflow shows.
SELECT arm_hash, measure, value
FROM measures
WHERE series = 'nightly' AND run_date = $run_date AND collection = $collection
    AND measure IN ('nDCG@10', 'MRR@10')
