//! Drives LibreOffice: a warm zygote process, a fork per document. Knows a directory and its limits, no Google.
