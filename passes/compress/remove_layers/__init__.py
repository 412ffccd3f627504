"""Two linear layers and the activation between them become one linear layer."""
