"""Fixed public features of the input, computed by the client, and a readout that runs encrypted."""
