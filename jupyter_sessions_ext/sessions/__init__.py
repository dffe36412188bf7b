"""The mapping of documents to kernels."""
