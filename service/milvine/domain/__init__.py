"""What milvine speaks of: frozen values and pure functions, without any I/O."""
