"""Small tools that everything uses: texts, streams, progress, meters, log context, files."""
