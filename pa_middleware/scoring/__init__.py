"""Messages in, scores out. Knows torch and tokenizers; knows no graph, no threshold, no span."""
