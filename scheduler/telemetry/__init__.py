"""What is told of the requests that pass: metrics, the live page's figures, journeys, traces and logs."""
