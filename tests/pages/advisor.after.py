assert advice.columns == ("tenant_id", "status", "created_at", "id")
