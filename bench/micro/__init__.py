"""What the core costs: CPU a ticket, a million simulated tickets, bytes a queued ticket. No Triton, no network."""
