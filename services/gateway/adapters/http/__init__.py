"""What agents speak to: the LLM, tool and secret endpoints, and the listeners that they come in by."""
