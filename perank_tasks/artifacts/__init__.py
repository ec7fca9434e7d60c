"""Artifacts: Parquet folders that are whole or not there, on disk or on S3."""
