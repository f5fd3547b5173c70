"""Results for people: tables, plots, HTML, and the comparison of two results."""
