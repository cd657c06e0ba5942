"""What happened, on disk: attempts, ledger, artifacts, frozen code, outcomes and their causes."""
