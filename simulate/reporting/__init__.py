"""What became of the tickets of a played scenario: figures by tenant, tables, plots, false refusals.

Shares are put beside weighted max-min fairness; a refusal is false where the ticket, let in alone into the same run,
would have ended in time. Nothing here changes a world that was played. `simulate.cli` calls it.
"""
