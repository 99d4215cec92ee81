"""Debian packages that install the GPU simulator under the names of NVIDIA's, and their repository."""
