assert place_order(session, "key") == place_order(session, "key") == {"id": 2}
assert lines.count() == 1
