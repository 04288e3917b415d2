"""What service and worker agree on: messages, Redis keys and the job ledger. Torch-free."""
