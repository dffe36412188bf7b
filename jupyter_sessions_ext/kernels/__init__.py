"""Kernels that outlive the server, and their adoption by the next one."""
