"""Where sessions and kernels are kept."""
