"""From labels to millimetres."""
