"""Made-up knees: anatomy, image, and cohorts on disk."""
