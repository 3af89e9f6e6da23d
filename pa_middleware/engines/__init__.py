"""Models on inference servers as policy and reference: vLLM, SGLang, and whatever passes the self-test."""
