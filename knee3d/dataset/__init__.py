"""From scanner to slices on disk, and made-up knees to try them on."""
