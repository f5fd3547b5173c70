"""How each model is quantized and judged, one recipe file each; `quantize.recipe` says what a recipe is."""
