"""The example application: the airports of the world, with one tenant for each country."""
