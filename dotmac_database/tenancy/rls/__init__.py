"""Row-level security: PostgreSQL's policies, the signed setting that names the tenant, and checks of a database."""
