"""Simulated RTX 5090s: an NVML library in C, the state it reads, and the program that changes the state."""
