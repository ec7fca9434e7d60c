-- Every vector that was ranked by has length 1. One that is not finite is not listed: its
-- queries could not be ranked, which is counted and reported with the night.
SELECT format('the embedding of {} has norm {:.4f}, and should have 1', id, norm) AS problem
FROM vectors
WHERE isfinite(norm) AND abs(norm - 1) > 0.01;
