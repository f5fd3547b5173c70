"""From recordings and counters to figures with confidence intervals."""
