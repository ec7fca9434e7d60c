-- The newest $nights nights of an arm up to its run: the mean, the baseline's, the band, the verdict,
-- and who accepted it. One result a date: of the run's own configuration where there is one, else of
-- the one whose hash sorts first; of limited nights the run itself alone.
FROM (
    SELECT
        run_date AS day,
        value,
        coalesce(verdict :: VARCHAR, 'incomplete') AS verdict,
        against_value AS baseline,
        band_low,
        band_high,
        accepted
    FROM measure_trend($collection, $arm, $measure)
    INNER JOIN runs USING (run_date, arm_hash)
    WHERE
        series = $series AND collection = $collection AND run_date <= $run_date
        AND (
            queries = collection_queries
            OR (run_date = $run_date AND arm_hash = $arm_hash)
        )
    QUALIFY row_number() OVER (
        PARTITION BY run_date ORDER BY arm_hash <> $arm_hash, arm_hash
    ) = 1
    ORDER BY run_date DESC
    LIMIT $nights
)
ORDER BY day;
