"""Networks that other tools quantized, brought to our form with their own integers."""
