"""What one generator process records: outcomes and latency histograms by the second."""
