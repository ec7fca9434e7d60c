"""The warehouse: DuckDB over Parquet, decisions, verdicts of nights, comparisons."""
