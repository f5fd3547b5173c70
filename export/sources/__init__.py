"""What the shipped models are made from: files of installed packages, a data set, pictures, a tokenizer, a network.

No code of a package that carries weights is run, and every such file is checked against its SHA-256.
`export.models` and `quantize.models` call it; users' definitions have no need to.
"""
