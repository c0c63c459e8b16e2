"""From images and masks to slices on disk: the manifest, cases, splits and audits."""
