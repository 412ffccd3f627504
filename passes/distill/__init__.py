"""Training the quantized network to imitate the imported one."""
