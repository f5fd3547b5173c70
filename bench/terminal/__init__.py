"""What the commands of `bench` have alike at a terminal: progress, wide tables, numbers, options, exit codes.

A thing is here when more than one command prints, takes or returns it, and it knows nothing of what was measured. All
command modules call it, and so do the runner of scenarios and the searches, which show their progress.
"""
