"""What the checker knows of each chapter's exercises: probes, hints and mistakes, one file a chapter."""
