"""Compression that trains: fine-tuning, sparsity, clusters and quantisation-aware training."""
