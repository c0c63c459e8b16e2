"""Made-up knees: anatomy -> image -> a cohort on disk, as if from a scanner and an expert."""
