"""Programs that make the models of the staging hub; two of them run in the vLLM stand-in, which has PyTorch."""
