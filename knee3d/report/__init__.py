"""From numbers to pictures and tables."""
