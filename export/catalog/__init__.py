"""Where definitions come from: shipped models, a user's Python file, an ONNX file alone, and a template to start from.

A model's names are known without importing its definition, which mostly imports torch.
The commands call it with what was typed.
"""
