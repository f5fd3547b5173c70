"""How each model is quantized and judged, one file each; `quantize.task` says what a task is."""
