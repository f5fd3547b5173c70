"""What quantizing came to: the table on the terminal, plots, and one HTML file.

Everything here only reads cards and results, and decides nothing.
`fairlane quantize` and `fairlane quantize-report` call it.
"""
