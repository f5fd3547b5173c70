"""What became of the tickets of a played scenario: figures, tables, plots."""
