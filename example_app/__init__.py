"""The example: the world's airports, one tenant for each country, by the toolkit and its FastAPI plugin."""
