"""From a folder of DICOM to a volume, and back: headers -> series -> regular grid -> pixels."""
