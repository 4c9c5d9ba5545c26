"""C++ of our own for the two places on a CPU where PyTorch's pieces take several times as long, and what builds it."""
