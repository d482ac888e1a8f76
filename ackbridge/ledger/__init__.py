"""The ledger: responses, the duplicate index, correlations and the inbox, in SQL."""
