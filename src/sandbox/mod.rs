//! How to run what we do not trust. Knows no office and no Google.
