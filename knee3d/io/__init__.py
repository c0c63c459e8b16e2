"""The forms of file that volumes come in, DICOM apart."""
