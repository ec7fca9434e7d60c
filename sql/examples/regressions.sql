-- What has been red, since when, and by how much?
FROM regressions_since('2026-01-01');
