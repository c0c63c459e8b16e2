"""Names of the views that are no plane. The network of a view lies in a folder of that name."""

OBLIQUE = "oblique"
"""The folder of the network that was trained on oblique slices. Its views are called after it, and numbered."""

SOLID = "volume"
"""The folder of the network that was trained on patches, and the name of its view."""

SHARED = "shared"
"""One network for the slices of all planes."""

FINEST_MM, COARSEST_MM = 0.05, 10.0
"""Of oblique slices."""

FUSED = "fused"
"""What all views together are called where each view has its name."""
