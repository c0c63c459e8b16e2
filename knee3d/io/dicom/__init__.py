"""Read a folder of DICOM as a volume, and write one: headers, series, regular grid, pixels."""
