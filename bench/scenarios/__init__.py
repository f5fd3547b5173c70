"""Load scenarios: their files, how they are run, and what is claimed of the outcome."""
