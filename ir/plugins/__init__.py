"""What plug-ins bring: who owns a name, how plug-ins are loaded, and the operators that they declare."""
