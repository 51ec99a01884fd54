"""Airport inspections: a multi-tenant application on real data. The tenant is a country."""
