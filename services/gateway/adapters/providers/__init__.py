"""LLM providers behind `ports.Provider`."""
