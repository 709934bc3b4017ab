"""milvine trains user and item embeddings, keeps them in Milvus and serves ranked results."""
