"""Run folders -> one HTML page, Markdown and CSV."""
