"""providers  the LLM providers: http, recorded
prices     what they cost, from genai-prices
endpoint   the HTTP endpoints behind tools
http       the surfaces that agents speak to, and their listeners
"""
