"""How each model is quantized and judged, one file each; `quantize.tasks.task` says what a task is."""
