"""Everything that talks to Triton: channels, the catalogue of models, batches on the wire, the embedded server."""
